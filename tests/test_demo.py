"""The demo shows what it promises, and leaves nothing behind however it ends."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from strangle_mw.core.fallback import REASONS
from strangle_mw.core.sticky import bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from flask import Flask
    from flask.testing import FlaskClient

pytest.importorskip("awslambdaric")
pytest.importorskip("botocore")
pytest.importorskip("gunicorn")
pytest.importorskip("flask")

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "flask_app"
COMMAND = [sys.executable, "-X", "dev", "-W", "error", str(FOLDER / "demo.py")]
DEADLINE = 90.0
ENDPOINTS = ["/v1/getSalesLeads", "/v1/getMarketingEvents", "/v1/getDeliveryProjects"]


def load(name: str) -> ModuleType:
    """Import a module of the demo, which is a folder of scripts and not a package."""
    spec = importlib.util.spec_from_file_location(f"demo_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and Flask look their module up
    sys.path.insert(0, str(FOLDER))  # as for a script that is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


# --- the replay -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("once")
    return subprocess.run(
        [*COMMAND, "--once"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"}


def test_once_exits_with_0_and_says_nothing_on_stderr(replay: subprocess.CompletedProcess[str]) -> None:
    assert (replay.returncode, replay.stderr) == (0, ""), replay.stdout


def test_each_step_names_who_answered(replay: subprocess.CompletedProcess[str]) -> None:
    parts = steps(replay)
    row = re.compile(r"^  \u2713 GET (\S+) +(\S+) +200 +[\d.]+ ms$", re.MULTILINE)
    old, leads, marketing = "monolith", "leads-service", "marketing-function"
    assert [row.findall(part) for part in parts] == [
        [],
        list(zip(ENDPOINTS, [old, old, old], strict=True)),
        list(zip(ENDPOINTS, [leads, old, old], strict=True)),
        list(zip(ENDPOINTS, [leads, marketing, old], strict=True)),
        list(zip(ENDPOINTS, [leads, old, old], strict=True)),
        list(zip(ENDPOINTS, [old, old, old], strict=True)),
        *([], [], []),  # these ask as many users
    ]


def steps(replay: subprocess.CompletedProcess[str]) -> list[str]:
    return re.split(r"^Step \d ", replay.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("what", ["log in", "POST", "upload", "streamed"])
def test_the_rest_works_through_the_strangled_app(
    replay: subprocess.CompletedProcess[str], what: str
) -> None:
    assert re.search(rf"^  \u2713 {what}.* 20[01] +[\d.]+ ms$", replay.stdout, re.MULTILINE), replay.stdout


def test_each_table_is_followed_by_all_workers(replay: subprocess.CompletedProcess[str]) -> None:
    told = [
        re.findall(r"^    (\d) workers follow the new table after [\d.]+ s$", part, re.MULTILINE)
        for part in steps(replay)
    ]
    assert told == [[], [], *[["2"]] * 5, [], []]


def promises(part: str) -> dict[str, str]:
    """Return what was promised in one step, and what was seen."""
    return dict(re.findall(r"^  \u2713 (.*?\S) {2,}(.+)$", part, re.MULTILINE))


def users_below(points: int) -> int:
    """Count the demo's users on the modern side at a weight, as docs/sticky.md has it."""
    return sum(bucket("leads", f"u{number}") < points for number in range(1, 201))


def test_a_canary_is_the_same_users_each_time_and_a_higher_weight_adds_some(
    replay: subprocess.CompletedProcess[str],
) -> None:
    part = steps(replay)[6]
    few, more = users_below(500), users_below(2500)
    assert 0 < few < more
    assert promises(part) == {
        "200 users, asked twice": f"{few} on leads-service, {200 - few} on monolith",
        "the same side both times": "200 of 200",
        "200 users, asked again": f"{more} on leads-service, {200 - more} on monolith",
        "back on the old code": f"0 of {few}",
    }
    assert "$ strangle set leads weight=25 --by demo" in part
    assert "leads: canary 5 % -> canary 25 % (by demo: nobody has complained)\n" in part
    assert "      2 of 2 workers follow\n" in part


def test_no_request_fails_when_the_service_is_killed(replay: subprocess.CompletedProcess[str]) -> None:
    part = steps(replay)[7]
    (asked, failed), *others = promises(part).items()
    assert failed == "0 failed"
    (_, counted), (_, breakers) = others
    assert counted == "the same"
    assert re.fullmatch(r"opened in ([12]) workers, closed again in \1", breakers)
    assert re.findall(r"^ {6}[\d.]+ s  leads-service (is \w+|answers)", part, re.MULTILINE) == [
        "is killed",
        "is up",
        "answers",
    ]
    rows = re.findall(r"^ +(\d+) by (.*?)(?:: (.+))?$", part, re.MULTILINE)
    assert [who for _, who, _ in rows] == [
        "leads-service",
        "the monolith, for users who have not moved",
        "the monolith instead of leads-service",
    ]
    modern, own, instead = (int(number) for number, *_ in rows)
    assert modern >= 50
    assert own > 0
    assert instead > 0
    assert f"{modern + own + instead} requests meanwhile" == asked
    reasons = {name: int(number) for name, number in re.findall(r"([\w-]+) (\d+)", rows[-1][2])}
    assert sum(reasons.values()) == instead
    assert {"connect", "breaker"} <= reasons.keys() <= REASONS


def test_a_rollback_by_hand_reaches_all_workers(replay: subprocess.CompletedProcess[str]) -> None:
    part = steps(replay)[8]
    (_, failed), (after, late) = promises(part).items()
    assert (failed, late) == ("0 failed", "0 by leads-service")
    assert int(after.removesuffix(" after the command")) >= 100
    command, _, status = part.partition("$ strangle rollback leads --by demo")[2].partition(
        "$ strangle status\n"
    )
    assert "leads: modern -> legacy (by demo: something looks odd)\n      2 of 2 workers follow\n" in command
    assert re.search(r"Followed by all workers: .* [\d.]+ s after the change was stored", command)
    assert re.search(r"^ +leads +legacy .*\n +set by demo, .*: something looks odd$", status, re.MULTILINE)
    assert "workers: 2\n" in status
    assert re.search(r"rollback +leads: modern -> legacy", status)


def test_a_lambda_function_answers_as_its_own_output_says(
    replay: subprocess.CompletedProcess[str],
) -> None:
    part = steps(replay)[3]
    assert part.startswith(" marketing forwarded: a second route, to a Lambda function\n")
    assert re.search(
        r"^      marketing \| 4 events, request [0-9a-f-]{36}\n      marketing \| ok [\d.]+ ms$",
        part,
        re.MULTILINE,
    )


def test_no_colours_and_no_crosses_in_a_pipe(replay: subprocess.CompletedProcess[str]) -> None:
    assert "\033" not in replay.stdout
    assert "\u2717" not in replay.stdout


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--once", "--port", str(port)],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_replay_has_no_step_to_begin_with() -> None:
    done = subprocess.run(
        [*COMMAND, "--from=10"], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert "invalid choice: 10" in done.stderr


@pytest.mark.parametrize("port", ["65536", "-1", "http", "\u0663"])
def test_an_impossible_port_is_refused(port: str) -> None:
    done = subprocess.run(
        [*COMMAND, f"--port={port}"], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert "is no port" in done.stderr
    assert "Traceback" not in done.stderr


# --- how it ends ------------------------------------------------------------------------------------


class Running:
    """A demo that runs beside the test; its output is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line like {pattern!r} in\n{''.join(self.lines)}\n{self.rest()}")

    def rest(self) -> str:
        """Wait for the end and return what was written to stderr."""
        assert self.process.stderr is not None
        error = self.process.stderr.read()
        self.process.wait()
        return error

    def started(self) -> dict[str, tuple[str, int]]:
        """Read on to the table's line; return each child's address and pid."""
        self.read_until("table of routes")
        rows = re.findall(r"^  (\S+) +(http:\S+) +pid (\d+)$", "".join(self.lines), re.MULTILINE)
        return {name: (address, int(pid)) for name, address, pid in rows}


# A signal may come between the opening of a socket and the line that would close it. The program ends at
# once, so nothing leaks but a warning about it.
INTERRUPTED = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(FOLDER / "demo.py")]


STOPPED = "\ndemo: stopped, no process is left\n"


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [*INTERRUPTED, *arguments],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    watchdog = threading.Timer(DEADLINE, process.terminate)
    watchdog.start()
    try:
        with process:
            try:
                yield Running(process)
            finally:
                process.terminate()
    finally:
        watchdog.cancel()


def family(children: dict[str, tuple[str, int]]) -> list[int]:
    """Return the pids of all servers and of their workers, the function's two among them."""
    servers = [pid for _, pid in children.values()]
    shown = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", ",".join(map(str, servers))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [*servers, *map(int, shown.stdout.split())]


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def alive(pid: int) -> bool:
    """Tell whether a process is there; a zombie that nobody has buried yet is not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not (held := condition()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return held


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with running(tmp_path, "--from=9") as demo:
        children = demo.started()
        address = demo.read_until(r"Open (http://\S+)/ ")[1]
        demo.read_until("Ctrl-C")
        pids = family(children)
        assert [fetch(address + path)["server"] for path in ENDPOINTS] == [
            "leads-service",
            "marketing-function",
            "monolith",
        ]
        roll_back_by_hand("".join(demo.lines))
        assert fetch(address + ENDPOINTS[0])["server"] == "monolith"
        # The demo, three servers, and the workers: the monolith and the function have two.
        assert len(processes_of(tmp_path)) == 9
        demo.process.send_signal(signal.SIGINT)
        assert demo.rest() == STOPPED
    assert demo.process.returncode == 130
    assert len(pids) == 8
    assert [pid for pid in pids if alive(pid)] == []
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def roll_back_by_hand(told: str) -> None:
    """Type the two lines that the demo tells its visitors."""
    folder, command = re.findall(r"^    (cd .+|\S+ rollback leads) *?(?: {2}.*)?$", told, re.MULTILINE)
    done = subprocess.run(
        f"{folder} && {command}", shell=True, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "leads: modern -> legacy" in done.stdout
    assert "2 of 2 workers follow" in done.stdout


def test_ctrl_c_after_the_kill_leaves_nobody(tmp_path: Path) -> None:
    with running(tmp_path, "--from=7") as demo:
        demo.read_until("leads-service is killed")
        demo.process.send_signal(signal.SIGINT)
        assert demo.rest() == STOPPED
    assert demo.process.returncode == 130
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_sigterm_in_the_middle_stops_everything(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        pids = family(demo.started())
        demo.process.terminate()
        assert demo.rest() == STOPPED
    assert demo.process.returncode == 128 + signal.SIGTERM
    assert [pid for pid in pids if alive(pid)] == []
    assert list(tmp_path.iterdir()) == []


def test_a_signal_before_the_first_child_answers_leaves_no_orphan(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        demo.read_until("A Flask monolith")
        demo.process.send_signal(signal.SIGINT)
        assert demo.rest() == STOPPED
    assert demo.process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert eventually(lambda: processes_of(tmp_path) == [])


def processes_of(folder: Path) -> list[str]:
    """List what has the folder in its environment: the demo's children inherit it."""
    shown = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True)
    return [line for line in shown.stdout.splitlines() if f"TMPDIR={folder}" in line]


def test_a_dying_server_is_named_with_its_last_words(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        children = demo.started()
        pids = family(children)
        os.kill(children["marketing-function"][1], signal.SIGKILL)
        error = demo.rest()
    assert demo.process.returncode == 1
    assert "marketing-function died (SIGKILL)" in error
    assert "marketing | ready, 2 processes" in error
    kept = re.search(r"kept in (\S+)", error)
    assert kept is not None
    assert (Path(kept[1]) / "marketing-function.log").is_file()
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_head_may_go_away(tmp_path: Path) -> None:
    """`demo.py | head -1`: no complaint, no orphan."""
    with running(tmp_path) as demo:
        demo.read_until("A Flask monolith")
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        assert demo.rest() == ""
    assert demo.process.returncode == 1
    assert list(tmp_path.iterdir()) == []


# --- its parts --------------------------------------------------------------------------------------


def test_a_step_that_shows_something_else_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    demo = load("demo")
    screen = demo.Screen(colours=True, marks=("ok", "NO"))
    screen.head("Step 2")
    screen.row(demo.Row("GET /x", "leads-service", "monolith", 200, 1.0))
    screen.row(demo.Row("GET /y", "monolith", "monolith", 502, 1.0))
    screen.row(demo.Row("GET /z", "monolith", "monolith", 200, 1.0))
    assert screen.differences == [
        "Step 2 | GET /x: wanted leads-service, got monolith with status 200",
        "Step 2 | GET /y: wanted monolith, got monolith with status 502",
    ]
    assert capsys.readouterr().out.count("\033[31;1mNO\033[0m") == 2


def test_a_promise_that_is_not_kept_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    demo = load("demo")
    screen = demo.Screen(colours=False, marks=("ok", "NO"))
    screen.head("Step 7")
    screen.promise("9 requests", "1 failed", kept=False)
    screen.promise("9 requests", "0 failed", kept=True)
    assert screen.differences == ["Step 7 | 9 requests: 1 failed"]
    assert re.findall("NO|ok", capsys.readouterr().out) == ["NO", "ok"]


@pytest.fixture
def mover() -> Any:
    """Return what moves leads, with a screen and no servers."""
    demo = load("demo")
    screen = demo.Screen(colours=False, marks=("ok", "NO"))
    return demo.Mover(demo.Demo(None, screen, FOLDER / "strangle.toml", None, {}))


def seen(server: str = "leads-service", *, fallback: str = "", problem: str = "", began: float = 1.0) -> Any:
    return load("demo").Visit("u1", began, server, fallback, problem)


def test_a_failed_request_is_told(mover: Any, capsys: pytest.CaptureFixture[str]) -> None:
    traffic = load("demo").Traffic(0, "/")
    traffic.visits += [seen(), seen("nobody", problem="status 502"), seen("nobody", problem="status 502")]
    mover.tell(traffic)
    assert mover.demo.screen.differences == [" | 3 requests meanwhile: 2 failed"]
    assert "2 times status 502\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        ({"modern": 1, "legacy": 2, "fallbacks": {"breaker": 1}}, True),
        ({"modern": 2, "legacy": 1, "fallbacks": {"breaker": 1}}, False),
        ({"modern": 1, "legacy": 2, "fallbacks": {"connect": 1}}, False),
    ],
)
def test_what_the_workers_count_is_compared(
    mover: Any, monkeypatch: pytest.MonkeyPatch, now: dict[str, Any], *, kept: bool
) -> None:
    monkeypatch.setattr(type(mover), "settled", lambda self, get, settled: {"now": now})
    mover.tell_who_answered([seen(), seen("monolith"), seen("monolith", fallback="breaker")])
    assert (mover.demo.screen.differences == []) is kept


@pytest.mark.parametrize(
    ("sides", "kept"),
    [
        ({"u1": "leads-service", "u2": "monolith"}, True),
        ({"u1": "monolith", "u2": "monolith"}, False),
        ({"u1": "leads-service", "u2": "leads-service"}, False),
        ({"u1": "leads-service", "u2": "monolith", "u3": "status 502"}, False),
    ],
)
def test_a_canary_has_users_on_both_sides(mover: Any, sides: dict[str, str], *, kept: bool) -> None:
    assert mover.tell_sides("asked", sides) == [u for u, side in sides.items() if side == "leads-service"]
    assert (mover.demo.screen.differences == []) is kept


@pytest.mark.parametrize(
    ("fallbacks", "well"),
    [("nnn", True), ("nn", False), ("nnf", False), ("fnnn", True), ("fnn", False)],
)
def test_a_service_has_recovered_when_it_answers_all(fallbacks: str, *, well: bool) -> None:
    visits = [seen(fallback="breaker" if one == "f" else "") for one in fallbacks]
    assert load("demo").recovered(visits, 3) is well


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        (["1 open", "2 open", "1 closed", "2 closed"], True),
        (["1 open", "2 open", "1 closed"], False),
        (["1 open", "1 closed", "1 open"], False),
        ([], False),
    ],
)
def test_breakers_have_to_open_and_to_close(
    mover: Any, monkeypatch: pytest.MonkeyPatch, events: list[str], *, kept: bool
) -> None:
    told = [{"at": 1.0, "worker": "3", "kind": "breaker-open"}]  # before the kill
    told += [{"at": 2.0, "worker": one[0], "kind": f"breaker-{one[2:]}"} for one in events]
    monkeypatch.setattr(type(mover), "read", lambda self, *arguments: told)
    monkeypatch.setattr(type(mover), "settled", lambda self, get, settled: get())
    mover.tell_breakers(2.0)
    assert (mover.demo.screen.differences == []) is kept


def test_users_who_have_moved() -> None:
    instead = seen("monolith", fallback="connect", began=2.0)
    early, late, own = seen(began=1.0), seen(began=3.0), seen("monolith", began=3.0)
    moved = load("demo").moved
    assert moved([early, instead, own, late]) == [early, instead, late]
    assert moved([early, instead, own, late], since=1.0) == [instead, late]


def test_only_the_first_signal_is_raised() -> None:
    signals = load("demo_servers").Signals()
    with pytest.raises(SystemExit) as raised:
        signals.receive(signal.SIGTERM, None)
    assert raised.value.code == 128 + signal.SIGTERM
    signals.receive(signal.SIGINT, None)  # must not interrupt the cleaning up


def test_a_signal_waits_until_the_child_is_noted_down() -> None:
    signals = load("demo_servers").Signals()
    noted = []

    def start() -> None:
        with signals.delayed():
            signals.receive(signal.SIGINT, None)
            noted.append("child")

    with pytest.raises(SystemExit):
        start()
    assert noted == ["child"]


def test_no_answer_is_a_row_with_a_cross() -> None:
    demo = load("demo")
    with demo.listen() as listener:
        port = listener.getsockname()[1]
    row = demo.Row.of("GET /", "monolith", lambda: demo.ask(port, "GET", "/"))
    assert not row.good
    assert "ConnectionRefusedError" in row.seen


def test_the_checked_in_table_is_the_one_that_the_demo_ends_with() -> None:
    demo = load("demo")
    written = tomllib.loads(demo.table_text(demo.AFTERWARDS.stages, {"leads": 8081, "marketing": 9001}))
    assert tomllib.loads((FOLDER / "strangle.toml").read_text(encoding="utf-8")) == written


# --- the services -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apps() -> dict[str, Flask]:
    monolith = load("monolith").create_app(routes=[])
    return {
        "monolith": monolith,
        "leads-service": load("leads_service").app,
    }


def ask(apps: dict[str, Flask], server: str, path: str) -> tuple[int, str | None, Any]:
    """Ask an app, or invoke the function; returns status, Cache-Control and the JSON."""
    if server in apps:
        answer = apps[server].test_client().get(path)
        return answer.status_code, answer.headers["Cache-Control"], answer.get_json()
    result = invoke(path)
    assert result["headers"]["Content-Type"] == "application/json"
    return result["statusCode"], result["headers"]["Cache-Control"], json.loads(result["body"])


def invoke(path: str) -> dict[str, Any]:
    """Invoke the function as payload format 2.0 has it: without a query there is no such key."""
    raw, _, query = path.partition("?")
    event: dict[str, Any] = {"version": "2.0", "rawPath": raw, "rawQueryString": query}
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    result: dict[str, Any] = load("marketing_fn").handler(event, SimpleNamespace(aws_request_id="1"))
    return result


@pytest.fixture
def monolith(apps: dict[str, Flask]) -> FlaskClient:
    return apps["monolith"].test_client()


SHAPES = {
    "/v1/getSalesLeads": ("numberLeads", "salesLeads", {"firstName", "lastName", "industry", "phone"}),
    "/v1/getMarketingEvents": ("numberEvents", "marketingEvents", {"Date", "Industry", "Location", "Name"}),
    "/v1/getDeliveryProjects": ("numberProjects", "projects", {"Client", "StartDate", "EndDate", "Industry"}),
}
WHO = [
    *(("monolith", path) for path in SHAPES),
    ("leads-service", "/v1/getSalesLeads"),
    ("marketing-function", "/v1/getMarketingEvents"),
]


@pytest.mark.parametrize(("server", "path"), WHO)
def test_shape(apps: dict[str, Flask], server: str, path: str) -> None:
    status, caching, body = ask(apps, server, path)
    assert (status, caching) == (200, "no-store")
    number, rows, keys = SHAPES[path]
    assert set(body) == {number, rows, "timeStamp", "server"}
    assert body["server"] == server
    assert body[number] == len(body[rows]) > 0
    assert all(set(row) == keys for row in body[rows])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", body["timeStamp"])


@pytest.mark.parametrize(("server", "path"), WHO[3:])
def test_the_new_code_says_what_the_old_said(apps: dict[str, Flask], server: str, path: str) -> None:
    old, new = (ask(apps, name, path)[2] for name in ("monolith", server))
    same = set(old) - {"timeStamp", "server"}
    assert {key: old[key] for key in same} == {key: new[key] for key in same}


@pytest.mark.parametrize(
    ("server", "query", "number"),
    [
        ("leads-service", "/v1/getSalesLeads?industry=energy", 2),
        ("leads-service", "/v1/getSalesLeads?industry=Mining", 0),
        ("leads-service", "/v1/getSalesLeads?industry=", 5),
        ("marketing-function", "/v1/getMarketingEvents?industry=FOOD", 1),
        ("marketing-function", "/v1/getMarketingEvents?industry=", 4),
        ("monolith", "/v1/getSalesLeads?industry=energy", 5),
    ],
)
def test_only_the_new_code_filters(apps: dict[str, Flask], server: str, query: str, number: int) -> None:
    body = ask(apps, server, query)[2]
    assert [value for key, value in body.items() if key.startswith("number")] == [number]


def test_the_monolith_says_for_whom_it_answers(monolith: FlaskClient) -> None:
    answers = [
        monolith.get("/v1/getSalesLeads", environ_overrides=environ).get_json()
        for environ in ({}, {"strangle.fallback": "breaker"})
    ]
    assert [answer.get("fallback") for answer in answers] == [None, "breaker"]


@pytest.mark.parametrize("pause", ["", "0", "-1", "nan", "x", "0.001"])
def test_a_pause_changes_nothing_but_the_time(apps: dict[str, Flask], pause: str) -> None:
    answer = apps["leads-service"].test_client().get(f"/v1/getSalesLeads?pause={pause}")
    assert answer.get_json()["numberLeads"] == 5


@pytest.mark.parametrize("server", ["monolith", "leads-service"])
def test_healthz_tells_the_worker(apps: dict[str, Flask], server: str) -> None:
    body = apps[server].test_client().get("/healthz").get_json()
    assert body.items() >= {"status": "ok", "pid": os.getpid(), "server": server}.items()


def test_healthz_tells_the_table(apps: dict[str, Flask]) -> None:
    app = apps["monolith"]
    assert (
        app.test_client().get("/healthz").get_json()["table"] == app.extensions["strangle"].snapshot.revision
    )


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("/", ENDPOINTS),
        ("/sales", ["Loading...", 'data-source="/v1/getSalesLeads"', 'data-key="firstName"']),
        ("/marketing", ["Loading...", 'data-source="/v1/getMarketingEvents"', 'data-key="Location"']),
        ("/projects", ["Loading...", 'data-source="/v1/getDeliveryProjects"', 'data-key="StartDate"']),
        ("/login", ["password"]),
    ],
)
def test_page(monolith: FlaskClient, page: str, words: list[str]) -> None:
    text = monolith.get(page).text
    assert all(word in text for word in words)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)


@pytest.mark.parametrize("file", ["app.js", "app.css"])
def test_pages_need_nothing_from_elsewhere(monolith: FlaskClient, file: str) -> None:
    answer = monolith.get(f"/static/{file}")
    assert answer.status_code == 200
    assert "//" not in re.sub(r"(?m)^\s*//.*$|\s//\s.*$", "", answer.text)
    answer.close()


def test_login_and_logout(monolith: FlaskClient) -> None:
    assert monolith.get("/whoami").get_json()["user"] is None
    assert monolith.post("/login", data={"user": "ada", "password": "wrong"}).status_code == 403
    assert monolith.get("/whoami").get_json()["user"] is None
    assert monolith.post("/login", data={"user": "ada", "password": "demo"}).status_code == 303
    assert monolith.get("/whoami").get_json()["user"] == "ada"
    assert "Log out" in monolith.get("/").text
    assert monolith.post("/logout").status_code == 303
    assert monolith.get("/whoami").get_json()["user"] is None


def test_notes_by_json_and_by_form(monolith: FlaskClient) -> None:
    made = monolith.post("/v1/leadNotes", json={"lead": "Mei", "note": "call"})
    assert made.status_code == 201
    assert made.get_json().items() >= {"lead": "Mei", "note": "call", "author": "anonymous"}.items()
    assert monolith.post("/v1/leadNotes", data={"lead": "Rosa", "note": "<b>write</b>"}).status_code == 303
    assert "&lt;b&gt;write&lt;/b&gt;" in monolith.get("/").text
    latest = monolith.get("/v1/leadNotes").get_json()["leadNotes"]
    assert [note["lead"] for note in latest[:2]] == ["Rosa", "Mei"]


def test_workers_share_their_notes(tmp_path: Path) -> None:
    notes = load("monolith").Notes
    one, other, alone = (notes(file) for file in (tmp_path / "notes.db", tmp_path / "notes.db", ":memory:"))
    first = one.add("Mei", "call", "ada")
    second = other.add("Rosa", "write", "bob")
    assert one.latest() == other.latest() == [second, first]
    assert one.latest(1) == [second]
    assert alone.latest() == []


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"lead": "Mei"}},
        {"json": ["Mei"]},
        {"json": {"lead": " ", "note": "x"}},
        {"data": {}},
        {"data": b"{", "content_type": "application/json"},
    ],
)
def test_a_note_that_is_none(monolith: FlaskClient, sent: dict[str, Any]) -> None:
    assert monolith.post("/v1/leadNotes", **sent).status_code == 400


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_upload_by_form_and_bare(monolith: FlaskClient, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    measured = {"size": size, "sha256": hashlib.sha256(content).hexdigest()}
    form = monolith.post(
        "/upload", data=as_form(content), content_type=f"multipart/form-data; boundary={BOUNDARY}"
    )
    assert form.get_json().items() >= (measured | {"name": "a.bin"}).items()
    bare = monolith.post("/upload", data=content, content_type="application/octet-stream")
    assert bare.get_json().items() >= (measured | {"name": None}).items()


BOUNDARY = "----demo"


def as_form(content: bytes) -> bytes:
    """Encode by hand: what the test client makes of a large file is a temporary one that it never closes."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def test_upload_without_a_file(monolith: FlaskClient) -> None:
    answer = monolith.post("/upload", data={"other": "x"}, content_type="multipart/form-data")
    assert answer.status_code == 400


def test_export_comes_in_chunks(monolith: FlaskClient) -> None:
    answer = monolith.get("/v1/exportProjects", buffered=False)
    chunks = list(answer.response)
    answer.close()
    assert len(chunks) == 7
    assert "Content-Length" not in answer.headers
