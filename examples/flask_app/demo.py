"""Replay how a Flask monolith is strangled, one endpoint at a time, and rolled back again.

Starts the monolith and two modern services as processes of their own, changes the table of routes step
by step and asks all three endpoints after each: who answered, with which status, in how many milliseconds?

    python examples/flask_app/demo.py --once
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds a server may take to start, to reload or to answer."""
TRIES = 5
"""How often each endpoint is asked in each step."""

# --- what is replayed -------------------------------------------------------------------------------

PATHS = {
    "leads": "/v1/getSalesLeads",
    "marketing": "/v1/getMarketingEvents",
    "projects": "/v1/getDeliveryProjects",
}
SERVERS = {"leads": "leads-service", "marketing": "marketing-service"}
REMARK = "# The table of the running demo. What is not named here stays with the monolith.\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One state of the table: the stage of each route in it."""

    title: str
    stages: Mapping[str, str]

    def expected(self, service: str) -> str:
        return SERVERS[service] if self.stages.get(service) == "modern" else "monolith"


STEPS = (
    Step("default route only: no route in the table", {}),
    Step("leads forwarded: a first route", {"leads": "modern"}),
    Step("marketing forwarded: a second route", {"leads": "modern", "marketing": "modern"}),
    Step('marketing rolled back: stage = "legacy"', {"leads": "modern", "marketing": "legacy"}),
    Step('leads rolled back: stage = "legacy"', {"leads": "legacy", "marketing": "legacy"}),
)
AFTERWARDS = Step("leads and marketing forwarded", {"leads": "modern", "marketing": "modern"})


def table_text(stages: Mapping[str, str], ports: Mapping[str, int]) -> str:
    """Write the table of routes for one step, as a person would."""
    upstreams = [f'[upstreams.{name}]\nurl = "http://{HOST}:{ports[name]}"\n' for name in stages]
    routes = [
        f'[[routes]]\npath = "{PATHS[name]}"\nmethods = ["GET"]\nto = "{name}"\nstage = "{stage}"\n'
        for name, stage in stages.items()
    ]
    return "\n".join([REMARK, *upstreams, *routes])


def replace(file: Path, text: str) -> None:
    """Put a new file in the place of the old one: nobody ever reads half of it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


# --- asking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took until all of it was there."""

    status: int
    headers: http.client.HTTPMessage
    pieces: tuple[bytes, ...]
    first_piece_at: float
    milliseconds: float

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> dict[str, Any]:
        """Return the object in the body, or nothing where there is none (a page, an error)."""
        with suppress(ValueError):
            found = json.loads(self.body)
            return found if isinstance(found, dict) else {}
        return {}


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = PATIENCE,
) -> Answer:
    """Make one request on a connection of its own, so that no idle one delays a reload."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    started = time.perf_counter()
    try:
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        pieces, first = read_pieces(response)
    finally:
        connection.close()
    elapsed = (time.perf_counter() - started) * 1000
    return Answer(response.status, response.headers, pieces, first, elapsed)


def read_pieces(response: http.client.HTTPResponse) -> tuple[tuple[bytes, ...], float]:
    """Read the body as it arrives, and note when its first piece did."""
    first = response.read1()
    arrived = time.time()
    return (first, *iter(response.read1, b"")), arrived


# --- child processes --------------------------------------------------------------------------------


class DemoError(Exception):
    """The demo cannot go on; the message is for the person who started it."""


@dataclass(slots=True)
class Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into SystemExit, but never while they are held back."""

    held: bool = False
    pending: int = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is ignored under nohup
            signal.signal(signal.SIGHUP, self.receive)

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.pending:  # the first one is on its way out already: nothing shall stop it
            return
        self.pending = number
        if not self.held:
            self.check()

    def check(self) -> None:
        """Raise what was held back, or what Python swallowed because a finalizer was running."""
        if self.pending:
            raise SystemExit(128 + self.pending)

    @contextmanager
    def delayed(self) -> Iterator[None]:
        """Let a child be born and noted down in one go: else Ctrl-C between the two leaves an orphan."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        self.check()


@dataclass(frozen=True, slots=True)
class Child:
    """One gunicorn with one worker."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def worker(self) -> int:
        """Return the worker's pid, or 0 as long as it does not answer."""
        with suppress(OSError, http.client.HTTPException):
            return int(ask(self.port, "GET", "/healthz", timeout=2.0).json().get("pid", 0))
        return 0

    def last_lines(self, count: int = 15) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-count:])


@dataclass(slots=True)
class Children:
    """The processes of the demo."""

    folder: Path
    signals: Signals
    all: list[Child] = field(default_factory=list)

    def stop(self) -> None:
        """End all that are left; from here on no signal interrupts any more."""
        self.signals.held = True
        for child in self.all:
            child.process.terminate()
        while self.all:
            end(self.all[-1].process)
            self.all.pop()

    def start(
        self, name: str, module: str, listener: socket.socket | None = None, **environment: str
    ) -> Child:
        """Serve `module:app` on a socket that is open already, so that nobody can take the port."""
        log = self.folder / f"{name}.log"
        with self.signals.delayed(), listener or listen() as bound, log.open("wb") as output:
            bind = f"fd://{bound.fileno()}"
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "-b", bind, f"{module}:app"],
                cwd=HERE,
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[bound.fileno()],
                # Ctrl-C in a terminal goes to the whole group: the demo alone shall get it and end the rest.
                start_new_session=True,
            )
            child = Child(name, bound.getsockname()[1], log, process)
            self.all.append(child)
        return child

    def check(self) -> None:
        """Raise if a child has died, or somebody wants to leave."""
        self.signals.check()
        for child in self.all:
            if (code := child.process.poll()) is not None:
                reason = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                raise DemoError(f"{child.name} died ({reason}). Its log ends with:\n{child.last_lines()}")

    def wait_for(self, get: Callable[[], int], otherwise: str) -> int:
        """Ask until the answer is not zero, and return it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := get()):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{otherwise} within {PATIENCE:.0f} s.")
            time.sleep(0.02)
        return found

    def reload(self, child: Child) -> None:
        """Let gunicorn replace its worker gracefully, and wait until only the new one answers."""
        silent = f"{child.name} did not answer"
        old = self.wait_for(child.worker, silent)
        child.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: not alive(old), f"The old worker of {child.name} did not go")
        self.wait_for(child.worker, silent)


def clean_environment() -> dict[str, str]:
    """Leave out what would change gunicorn or the table behind the demo's back."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "GUNICORN_CMD_ARGS" and not name.startswith("STRANGLE_")
    }


def end(process: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """Wait for a process that was asked to go; then make sure that nobody of its session is left."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def listen(port: int = 0) -> socket.socket:
    """Open a listening socket; port 0 means any free one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


# --- showing ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One request of the replay: what should be seen, and what was."""

    what: str
    wanted: str
    seen: str
    status: int
    milliseconds: float

    @classmethod
    def of(cls, what: str, wanted: str, act: Callable[[], tuple[str, Answer]]) -> Row:
        """Do it; no answer at all is something to show, not a reason to stop."""
        try:
            seen, answer = act()
        except (OSError, http.client.HTTPException, ValueError) as problem:
            return cls(what, wanted, repr(problem), 0, 0.0)
        return cls(what, wanted, seen, answer.status, answer.milliseconds)

    @property
    def good(self) -> bool:
        return self.seen == self.wanted and 200 <= self.status < 300

    def difference(self) -> str:
        return f"{self.what}: wanted {self.wanted}, got {self.seen} with status {self.status}"


@dataclass(slots=True)
class Screen:
    """Prints rows with a mark, and remembers what was not as it should be."""

    colours: bool
    marks: tuple[str, str]
    differences: list[str] = field(default_factory=list)
    heading: str = ""

    @classmethod
    def of_stdout(cls) -> Screen:
        """Choose colours and marks that this output can show."""
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        try:
            "\u2713\u2717".encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            return cls(colours, ("ok", "NO"))
        return cls(colours, ("\u2713", "\u2717"))

    def paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def head(self, text: str) -> None:
        self.heading = text
        print(f"\n{self.paint(text, '1')}")

    def note(self, text: str) -> None:
        print(self.paint(text, "2"))

    def row(self, row: Row) -> None:
        mark = self.paint(self.marks[0], "32") if row.good else self.paint(self.marks[1], "31;1")
        wanted = "" if row.good else f"   wanted: {row.wanted}"
        print(f"  {mark} {row.what:<28} {row.seen:<18} {row.status:>4} {row.milliseconds:8.1f} ms{wanted}")
        if not row.good:
            self.differences.append(f"{self.heading} | {row.difference()}")


# --- the replay -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Demo:
    """The monolith, its two successors, and the table between them."""

    children: Children
    screen: Screen
    table: Path
    monolith: Child
    services: Mapping[str, Child]

    @classmethod
    def start(cls, children: Children, screen: Screen, listener: socket.socket) -> Demo:
        """Start all three processes and wait until each of them answers."""
        table = children.folder / "strangle.toml"
        replace(table, table_text({}, {}))
        services = {name: children.start(server, f"{name}_service") for name, server in SERVERS.items()}
        monolith = children.start(
            "monolith",
            "monolith",
            listener,
            STRANGLE_ROUTES=str(table),
            # Known to the demo only, and the same after every reload: sessions survive.
            FLASK_SECRET_KEY=secrets.token_hex(),
        )
        demo = cls(children, screen, table, monolith, services)
        demo.wait_for_all()
        return demo

    def wait_for_all(self) -> None:
        for child in self.children.all:
            self.children.wait_for(child.worker, f"{child.name} did not answer")
            print(f"  {child.name:<18} http://{HOST}:{child.port:<6} pid {child.process.pid}")
        print(f"  {'table of routes':<18} {self.table}")

    def replay(self) -> None:
        for number, step in enumerate(STEPS, 1):
            if number > 1:
                self.apply(step)
            self.screen.head(f"Step {number}  {step.title}")
            self.show(step)
            if number == 2:
                self.screen.note("    and what the monolith keeps, asked through the same facade:")
                Visitor(self.monolith.port, self.screen).tour()

    def apply(self, step: Step) -> None:
        ports = {name: child.port for name, child in self.services.items()}
        replace(self.table, table_text(step.stages, ports))
        self.children.reload(self.monolith)

    def show(self, step: Step) -> None:
        for service, path in PATHS.items():
            self.screen.row(Row.of(f"GET {path}", step.expected(service), partial(self.server, path)))
        self.children.check()

    def server(self, path: str) -> tuple[str, Answer]:
        """Ask a few times: whoever answers has to do so each time, and the first time may be a slow one."""
        answers = [ask(self.monolith.port, "GET", path) for _ in range(TRIES)]
        servers = {str(answer.json().get("server", "nobody")) for answer in answers}
        return " or ".join(sorted(servers)), sorted(answers, key=lambda it: it.milliseconds)[TRIES // 2]


@dataclass(slots=True)
class Visitor:
    """Uses what the walk-through with its three GETs leaves out: session, POST, upload, stream."""

    port: int
    screen: Screen
    cookie: str = ""

    def tour(self) -> None:
        for what, wanted, act in (
            ("log in, then who am I", "user ada", self.log_in),
            ("POST a note", "note by ada", self.post_note),
            ("upload 3 MiB", "same sha256", self.upload),
            ("streamed export", "first before last", self.export),
        ):
            self.screen.row(Row.of(what, wanted, act))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, method, path, body, {"Cookie": self.cookie, **named})

    def log_in(self) -> tuple[str, Answer]:
        form = urlencode({"user": "ada", "password": "demo"})
        answer = self.ask("POST", "/login", form, Content_Type="application/x-www-form-urlencoded")
        self.cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
        answer = self.ask("GET", "/whoami")
        return f"user {answer.json().get('user')}", answer

    def post_note(self) -> tuple[str, Answer]:
        note = json.dumps({"lead": "Mei Tanaka", "note": "Call back on Tuesday"})
        answer = self.ask("POST", "/v1/leadNotes", note, Content_Type="application/json")
        return f"note by {answer.json().get('author')}", answer

    def upload(self) -> tuple[str, Answer]:
        block, times = bytes(range(256)) * 256, 48
        length = str(len(block) * times)
        answer = self.ask("POST", "/upload", iter([block] * times), Content_Length=length)
        same = answer.json().get("sha256") == hashlib.sha256(block * times).hexdigest()
        return "same sha256" if same else "other sha256", answer

    def export(self) -> tuple[str, Answer]:
        """Prove the streaming: the first piece was here before the last line was written."""
        answer = self.ask("GET", "/v1/exportProjects")
        written = float(answer.body.decode().splitlines()[-1].rpartition(",")[2])
        streamed = len(answer.pieces) > 1 and answer.first_piece_at < written
        return "first before last" if streamed else "all at once", answer


# --- the program ------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Replay how a Flask monolith is strangled: default route only, leads forwarded, "
        "marketing forwarded, each rolled back. Then keep it running, to be looked at in a browser.",
        epilog="Exit code: 0 all as it should be; 1 a step showed something else, or a server died; "
        "2 the port cannot be used; 130 ended by Ctrl-C.",
    )
    parser.add_argument("--once", action="store_true", help="exit after the replay instead of staying up")
    parser.add_argument(
        "--port", type=port_number, default=0, metavar="N", help="port of the monolith (default: a free one)"
    )
    return parser.parse_args(arguments)


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535, or 0 for a free one")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        listener = listen(options.port)
    except OSError as problem:
        print(f"demo: {refusal(options.port, problem)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="strangle-demo-"))
    keep = True
    try:
        code = supervise(folder, listener, once=options.once)
        keep = code != 0
    except SystemExit:
        keep = False
        with suppress(OSError):  # the terminal itself may have gone
            print("\ndemo: stopped, no process is left", file=sys.stderr)
        raise
    except BrokenPipeError:
        keep = False
        raise
    finally:
        leave(folder, keep=keep)
    return code


def refusal(port: int, problem: OSError) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} of {HOST} is taken. Name another, or none to get a free one."
    return f"port {port} of {HOST} cannot be used: {problem.strerror}."


def supervise(folder: Path, listener: socket.socket, *, once: bool) -> int:
    """Run the demo with all that it needs around it; leave no process behind."""
    signals = Signals()
    signals.install()
    children = Children(folder, signals)
    try:
        with listener:
            return run_and_stop(children, listener, once=once)
    except DemoError as problem:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    finally:
        # Once more, for a signal that came before the first line of the other `stop`. There is no third
        # one, because only the first signal is ever raised.
        children.stop()


def run_and_stop(children: Children, listener: socket.socket, *, once: bool) -> int:
    try:
        return run(children, listener, once=once)
    finally:
        children.stop()


def run(children: Children, listener: socket.socket, *, once: bool) -> int:
    """Replay everything; return the exit code, or stay until somebody presses Ctrl-C."""
    screen = Screen.of_stdout()
    print("A Flask monolith is strangled, endpoint by endpoint, inside the process that serves it.\n")
    demo = Demo.start(children, screen, listener)
    screen.note(
        f"\n  Each step is a new table file and a graceful reload of the monolith; changes that need no\n"
        f"  reload come in a later version. Each endpoint is asked {TRIES} times; the time is the median."
    )
    demo.replay()
    report(screen)
    if not (once or screen.differences):
        stay(demo)
    return 1 if screen.differences else 0


def report(screen: Screen) -> None:
    screen.head("Differences" if screen.differences else "Each step showed what it should.")
    for difference in screen.differences:
        print(f"  {difference}")


def stay(demo: Demo) -> NoReturn:
    """Leave leads and marketing forwarded, and watch the children until a signal ends this."""
    demo.apply(AFTERWARDS)
    base = f"http://{HOST}:{demo.monolith.port}"
    strangle = Path(sys.executable).with_name("strangle")
    table = shlex.quote(str(demo.table))
    demo.screen.head(f"Open {base}/   ({AFTERWARDS.title})")
    print(
        f"  Sales and Marketing show another server than Projects. Also try:\n"
        f"    curl -i '{base}{PATHS['leads']}?industry=Energy'    the new code filters, the old never did\n"
        f"    {strangle} explain {table} GET {PATHS['leads']}\n"
        f'  Roll back by hand: write stage = "legacy" in the table, then\n'
        f"    kill -HUP {demo.monolith.process.pid}\n"
        f"  Ctrl-C stops everything."
    )
    while True:
        demo.children.check()
        time.sleep(0.2)


def leave(folder: Path, *, keep: bool) -> None:
    if keep:
        print(f"demo: logs and table are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # Lines come one by one into a pipe, too: whoever reads there wants to see them now.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(main())
    except BrokenPipeError:
        # Whoever read (`head`, say) has gone; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
