"""Strangled apps of both kinds without a server between, as the promises' tests use them."""

from promises.conftest import strangled

__all__ = ["strangled"]
