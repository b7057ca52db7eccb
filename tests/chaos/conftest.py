"""How long the chaos lasts: once through all faults in the suite, more rounds by `make chaos`."""


def pytest_addoption(parser):
    parser.addoption(
        "--chaos-rounds",
        type=int,
        default=0,
        help="rounds of faults, in an order by chance and with rollbacks, after the one that is always run",
    )
    parser.addoption(
        "--chaos-seed", type=int, default=0, help="chance as in an earlier run, which has told this"
    )
