"""Everything that decides.

RULE: standard library only; no sockets, clock, sleep, threads, logging, environment.

`tests/test_layers.py` enforces the rule. What a function here needs to know of the world is an argument.
"""
