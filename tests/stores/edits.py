"""Run as a program: edit a store from several processes, on both sides of a fork, or without rights."""

import os
import sys
import threading

from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import Override, encode_overrides, parse_overrides, with_override
from strangle_mw.stores import StoreError, open_store

OVERRIDE = Override(Stage.MODERN, None, "ann", 1.0, "")


def turn(store, route):
    store.edit(lambda raw: encode_overrides(with_override(parse_overrides(raw), route, OVERRIDE, 0.0)))


def many(url, name, number):
    """Edit many times; begins when its standard input is closed."""
    store = open_store(url)
    sys.stdin.read()
    for at in range(int(number)):
        turn(store, f"{name} {at}")
        store.add_counts({"edits": 1})
    store.close()


def forked(url):
    """Use a store, fork while other threads use it, and use it on both sides."""
    store = open_store(url)
    store.wait(0)
    turn(store, "before")
    begun, ended = threading.Event(), threading.Event()

    def slowly(raw):
        begun.set()
        ended.wait(20)
        return encode_overrides(with_override(parse_overrides(raw), "meanwhile", OVERRIDE, 0.0))

    editing = threading.Thread(target=store.edit, args=(slowly,))
    waiting = threading.Thread(target=store.wait, args=(1000,))
    editing.start()
    waiting.start()
    begun.wait(20)
    child = os.fork()
    if child == 0:
        assert parse_overrides(store.read(0)).routes.keys() == {"before"}
        assert not store.wait(0) or not store.wait(0)  # a new subscription is a hint, once
        assert store.counts() == {}
        os._exit(0)
    _, status = os.waitpid(child, 0)
    ended.set()
    editing.join(20)
    child = os.fork()
    if child == 0:
        turn(store, "child")
        store.close()
        os._exit(0 if len(parse_overrides(store.read(0)).routes) == 3 else 1)
    _, second = os.waitpid(child, 0)
    turn(store, "parent")
    print(status, second, *sorted(parse_overrides(store.read(0)).routes))
    store.close()
    waiting.join(20)


def as_nobody(url):
    """Edit with the rights of nobody, and print why not."""
    store = open_store(url)
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        turn(store, "a")
    except StoreError as exc:
        print(exc.reason)


if __name__ == "__main__":
    {"many": many, "forked": forked, "as_nobody": as_nobody}[sys.argv[1]](*sys.argv[2:])
