"""The modern side fails in every way while users go on: nobody reads an error, and nothing is done twice.

Real servers, real processes, a load of constant rate (design sections 4.2 and 4.3; promises P6, P12, P14, P15).
Each step is taken when the load has shown what the one before has led to, so nothing here depends on how fast
the machine is but the bounds that are promised in seconds. More rounds: `make chaos`.
"""

import itertools
import random
import re

import pytest

from chaos.judge import counted, describe, is_right, outcomes, too_late, wrongly_done
from chaos.load import CONNECTIONS, Load, Request
from chaos.stand import FRONTS, WORKERS, Stand
from chaos.steps import FIRST, ROLLED_BACK, SCENES, STEPS
from chaos.strangled import GROUP, WEIGHT
from strangle_mw.core.sticky import bucket

RATE = 150
USERS = [f"u{number}" for number in range(60)]
CANARY = [u for u in USERS if bucket(GROUP, u) < WEIGHT * 100]
CONTROL = [u for u in USERS if bucket(GROUP, u) >= WEIGHT * 100]
PLACES = {"canary": "shop", "control": "shop", "staged": "old", "plain": "plain"}
# Half of the canary's requests write.
MIX = [
    *["canary GET"] * 3,
    *["canary POST"] * 2,
    "canary PUT",
    "control GET",
    "control POST",
    "staged GET",
    "plain GET",
]


def requests(chance):
    """Yield requests of every kind, for ever; each has a path of its own.

    By chance: what comes round at regular times would meet the same probes of the breaker again and again.
    """
    users = {"canary": CANARY, "control": CONTROL}
    for number in itertools.count():
        kind, method = chance.choice(MIX).split(" ")
        body = b"" if method == "GET" else f"{number}.".encode() * (number % 500)
        yield Request(kind, method, f"/{PLACES[kind]}/{number}", chance.choice(users.get(kind, USERS)), body)


def more_steps(rounds, chance):
    """Return the steps of `make chaos`: all scenes in an order by chance, as often as there are rounds."""
    return [step for _ in range(rounds) for scene in chance.sample(SCENES, len(SCENES)) for step in scene]


def workers(seen):
    """Return the processes of the server that have answered."""
    return {s.answer["pid"] for s in seen if s.side == "legacy"}


@pytest.mark.parametrize("kind", FRONTS)
def test_a_failing_modern_side_is_no_business_of_the_users(kind, tmp_path, request):
    rounds, seed = (request.config.getoption(f"chaos_{name}", 0) for name in ("rounds", "seed"))
    seed = seed or random.randrange(1, 10**6)
    print(f"--chaos-rounds={rounds} --chaos-seed={seed}")
    chance, opened = random.Random(seed), []
    steps = [*FIRST, *more_steps(rounds, chance)]
    with Stand(kind, tmp_path) as stand:
        with Load(stand.port, requests(chance), RATE) as load:
            for name in steps:
                load.phase(name)
                STEPS[name].act(stand)
                load.wait(STEPS[name].shows)
                opened.append(stand.open_files(workers(load.seen)))
            assert stand.alive
        log = stand.log
    for name, seen in [("all", load.seen), *load.phases[1:]]:
        print(f"{name:20} {describe(seen)}")
    wrong = [(n, s) for n, seen in load.phases for s in seen if not is_right(s, rolled_back=n in ROLLED_BACK)]
    assert wrong == []
    assert wrongly_done(load.seen, stand.executed("modern"), stand.executed("legacy")) == []
    assert too_late(load.phases, load.lateness) == []
    assert len(workers(load.seen)) == WORKERS[kind], "a worker has died, and another came"
    assert opened[-1] <= opened[0] + CONNECTIONS, "connections are left open"
    assert not re.search("Traceback|ERROR|CRITICAL|Exception", log)
    counts, events = stand.stored()
    assert counted(counts) == outcomes(load.seen)
    assert {"breaker-open", "breaker-closed"} <= {event["kind"] for event in events}
