"""Replay how a Flask monolith is strangled, one endpoint at a time, and rolled back again.

Starts the monolith, a modern service and an AWS Lambda function (under `strangle lambda-dev`) as processes of
their own and changes the table of routes step by step: who answered, with which status, in how many
milliseconds? Then one route is moved by the command `strangle`, for some users first; its service is killed
while they go on asking; and it is rolled back.

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
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from examples.flask_app.demo_servers import STRANGLE, Child, Children, DemoError, Signals, listen
    from examples.flask_app.demo_users import HOST, PATIENCE, USERS, Answer, Traffic, Visit, ask, ask_for_all
else:  # a folder of scripts is no package when one of them is run
    from demo_servers import STRANGLE, Child, Children, DemoError, Signals, listen
    from demo_users import HOST, PATIENCE, USERS, Answer, Traffic, Visit, ask, ask_for_all

T = TypeVar("T")

TRIES = 5
"""How often each endpoint is asked in each step."""
WORKERS = 2
"""Processes of the monolith: what changes while they run has to reach each of them."""

# --- what is replayed -------------------------------------------------------------------------------

PATHS = {
    "leads": "/v1/getSalesLeads",
    "marketing": "/v1/getMarketingEvents",
    "projects": "/v1/getDeliveryProjects",
}
SERVERS = {"leads": "leads-service", "marketing": "marketing-function"}
FUNCTION = "marketing=marketing_fn:handler"
REMARK = "# The table of the running demo. What is not named here stays with the monolith.\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One state of the table: the stage of each route in it."""

    title: str
    stages: Mapping[str, str]
    shows: Literal["who answers", "function", "users", "kill", "rollback"] = "who answers"

    def expected(self, service: str) -> str:
        return SERVERS[service] if self.stages.get(service) == "modern" else "monolith"


STEPS = (
    Step("default route only: no route in the table", {}),
    Step("leads forwarded: a first route, to a service over HTTP", {"leads": "modern"}),
    Step(
        "marketing forwarded: a second route, to a Lambda function",
        {"leads": "modern", "marketing": "modern"},
        "function",
    ),
    Step('marketing rolled back: stage = "legacy"', {"leads": "modern", "marketing": "legacy"}),
    Step('leads rolled back: stage = "legacy"', {"leads": "legacy", "marketing": "legacy"}),
    Step('leads for 5 % of the users: stage = "canary"', {"leads": "canary"}, "users"),
    Step("leads-service is killed in mid-traffic", {"leads": "canary"}, "kill"),
    Step("leads for everybody, and rolled back in mid-traffic", {"leads": "canary"}, "rollback"),
)
AFTERWARDS = Step("leads and marketing forwarded", {"leads": "modern", "marketing": "modern"})

CANARY = """\
weight = 5                              # percent of the users
sticky = ["header:X-User", "cookie"]    # who is one: a header says so, else a cookie of the library's own
"""


def store_of(table: Path) -> str:
    """Say where the live changes of the running demo are kept."""
    return f"sqlite:///{quote(str(table.with_name('live.db')))}"


def upstream_text(name: str, port: int) -> str:
    """Write where a route goes: the marketing events to a function, anything else to a server."""
    place = f"http://{HOST}:{port}"
    where = f'lambda = "{name}"\nendpoint_url = "{place}"' if name == "marketing" else f'url = "{place}"'
    return f"[upstreams.{name}]\n{where}\nbreaker = {{ open = 1.0 }}\n"


def table_text(stages: Mapping[str, str], ports: Mapping[str, int], store: str = "") -> str:
    """Write the table of routes for one step, as a person would."""
    settings = [f'[strangle]\nstore = "{store}"\n'] if store else []
    upstreams = [upstream_text(name, ports[name]) for name in stages]
    routes = [
        f'[[routes]]\nname = "{name}"\npath = "{PATHS[name]}"\nmethods = ["GET"]\nto = "{name}"\n'
        f'stage = "{stage}"\n{CANARY if stage == "canary" else ""}'
        for name, stage in stages.items()
    ]
    return "\n".join([REMARK, *settings, *upstreams, *routes])


def replace(file: Path, text: str) -> None:
    """Put a new file in the place of the old one: nobody ever reads half of it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


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

    def mark(self, *, good: bool) -> str:
        return self.paint(self.marks[0], "32") if good else self.paint(self.marks[1], "31;1")

    def lines(self, text: str) -> None:
        for line in text.splitlines():
            print(f"      {line}".rstrip())

    def promise(self, what: str, seen: str, *, kept: bool) -> None:
        print(f"  {self.mark(good=kept)} {what:<28} {seen}")
        if not kept:
            self.differences.append(f"{self.heading} | {what}: {seen}")

    def row(self, row: Row) -> None:
        mark = self.mark(good=row.good)
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
    services: dict[str, Child]

    @classmethod
    def start(cls, children: Children, screen: Screen, listener: socket.socket) -> Demo:
        """Start all three and wait until each of them answers."""
        table = children.folder / "strangle.toml"
        replace(table, table_text({}, {}, store_of(table)))
        services = {
            "leads": children.start(SERVERS["leads"], "leads_service"),
            "marketing": children.start_function(SERVERS["marketing"], FUNCTION, size=WORKERS),
        }
        monolith = children.start(
            "monolith",
            "monolith",
            listener,
            size=WORKERS,
            STRANGLE_ROUTES=str(table),
            NOTES_FILE=str(children.folder / "notes.db"),
            # Known to the demo only, and the same in every worker: sessions survive.
            FLASK_SECRET_KEY=secrets.token_hex(),
        )
        demo = cls(children, screen, table, monolith, services)
        demo.wait_for_all()
        return demo

    def wait_for_all(self) -> None:
        for child in self.children.all:
            self.children.wait_for(child.ready, f"{child.name} did not answer")
            print(f"  {child.name:<18} http://{HOST}:{child.port:<6} pid {child.process.pid}")
        print(f"  {'table of routes':<18} {self.table}")

    def replay(self, first: int) -> None:
        mover = Mover(self)
        for number, step in enumerate(STEPS[first - 1 :], first):
            self.screen.head(f"Step {number}  {step.title}")
            self.apply(step)
            match step.shows:
                case "who answers":
                    self.show(step)
                case "function":
                    self.show(step)
                    self.show_log(self.services["marketing"])
                case "users":
                    mover.split_users()
                case "kill":
                    mover.kill()
                case "rollback":
                    mover.roll_back()
            if number == 2:
                self.screen.note("    and what the monolith keeps, asked through the same facade:")
                Visitor(self.monolith.port, self.screen).tour()
            self.children.check()

    def apply(self, step: Step) -> None:
        """Write the step's table, and wait until every worker of the monolith has read it by itself."""
        ports = {name: child.port for name, child in self.services.items()}
        text = table_text(step.stages, ports, store_of(self.table))
        if text == self.table.read_text(encoding="utf-8"):
            return
        old, started = set(self.monolith.workers().values()), time.monotonic()
        replace(self.table, text)
        self.children.wait_for(partial(self.follows, old), "The monolith did not follow its table")
        seconds = time.monotonic() - started
        self.screen.note(f"    {WORKERS} workers follow the new table after {seconds:.1f} s")

    def follows(self, old: AbstractSet[str]) -> bool:
        found = self.monolith.workers()
        return len(found) == WORKERS and old.isdisjoint(found.values())

    def show(self, step: Step) -> None:
        for service, path in PATHS.items():
            self.screen.row(Row.of(f"GET {path}", step.expected(service), partial(self.server, path)))

    def show_log(self, function: Child) -> None:
        """Show what the function printed when it was asked last, and how long it took by itself."""
        self.screen.note(f"    and what strangle lambda-dev {FUNCTION} says of it:")
        self.screen.lines("\n".join(function.text().splitlines()[-2:]))

    def server(self, path: str) -> tuple[str, Answer]:
        """Ask a few times: whoever answers has to do so each time, and the first time may be a slow one."""
        answers = [ask(self.monolith.port, "GET", path) for _ in range(TRIES)]
        servers = {str(answer.json().get("server", "nobody")) for answer in answers}
        return " or ".join(sorted(servers)), sorted(answers, key=lambda it: it.milliseconds)[TRIES // 2]


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves leads by the command `strangle`, as a person would, while its users go on asking."""

    demo: Demo

    # --- the command

    def command(self, *arguments: str) -> None:
        """Run it and show it."""
        screen = self.demo.screen
        print(screen.paint(f"  $ strangle {shlex.join(arguments)}", "36"))
        done = self.demo.children.run(*arguments)
        screen.lines(done.stdout + done.stderr)

    def change(self, *arguments: str, reason: str) -> None:
        self.command(*arguments, "--by", "demo", "--reason", reason, "--wait", "10")

    def read(self, *arguments: str) -> Any:
        return json.loads(self.demo.children.run(*arguments, "--json").stdout)

    def status(self) -> dict[str, Any]:
        """Return what `strangle status` says of leads."""
        routes: list[dict[str, Any]] = self.read("status")["routes"]
        return next(route for route in routes if route["route"] == "leads")

    def settled(self, get: Callable[[], T], settled: Callable[[T], bool]) -> T:
        """Read again until the workers have told it all, which takes them a second or two."""
        deadline = time.monotonic() + PATIENCE / 3
        while not settled(found := get()) and time.monotonic() < deadline:
            self.demo.children.check()
        return found

    # --- a canary

    def split_users(self) -> None:
        """Show that the canary's users are the same each time, and that a higher weight only adds some."""
        screen = self.demo.screen
        first, second = self.sides(), self.sides()
        moved = self.tell_sides("asked twice", first)
        same = sum(first[user] == second[user] for user in USERS)
        screen.promise("the same side both times", f"{same} of {len(USERS)}", kept=same == len(USERS))
        self.change("set", "leads", "weight=25", reason="nobody has complained")
        third = self.sides()
        self.tell_sides("asked again", third)
        back = [user for user in moved if third[user] != SERVERS["leads"]]
        screen.promise("back on the old code", f"{len(back)} of {len(moved)}", kept=not back)

    def sides(self) -> dict[str, str]:
        """Ask once for every user; say who answered."""
        seen = ask_for_all(self.demo.monolith.port, PATHS["leads"])
        return {one.user: one.problem or one.server for one in seen}

    def tell_sides(self, what: str, sides: Mapping[str, str]) -> list[str]:
        """Show how many are where; return those who have moved."""
        seen = Counter(sides.values())
        told = ", ".join(f"{number} on {server}" for server, number in reversed(seen.most_common()))
        kept = seen.keys() == {"monolith", SERVERS["leads"]}
        self.demo.screen.promise(f"{len(USERS)} users, {what}", told, kept=kept)
        return [user for user, server in sides.items() if server == SERVERS["leads"]]

    # --- a kill

    def kill(self) -> None:
        """Kill leads-service while it is asked, and start it again; show that no user has noticed."""
        self.change("set", "leads", "weight=50", reason="half of them")
        # A pause, so that some requests are under way whenever it is killed.
        with self.traffic("?pause=0.05") as traffic:
            self.wait(lambda: len(moved(traffic.visits)) >= 50, "leads-service was not asked")
            killed = time.time()
            place = self.demo.children.kill(self.demo.services["leads"])
            self.at(killed, "leads-service is killed (SIGKILL)")
            self.wait(lambda: len(moved(traffic.visits, killed)) >= 100, "Nobody went on asking")
            service = self.demo.children.start(SERVERS["leads"], "leads_service", place)
            self.demo.services["leads"] = service
            self.wait(service.ready, "leads-service did not come back")
            up = time.time()
            self.at(killed, "leads-service is up again")
            self.wait(lambda: recovered(moved(traffic.visits, up)), "leads-service was not asked again")
            self.at(killed, "leads-service answers all of its users again")
        self.tell(traffic)
        self.tell_who_answered(traffic.visits)
        self.tell_breakers(killed)

    def traffic(self, query: str = "") -> Traffic:
        return Traffic(self.demo.monolith.port, PATHS["leads"] + query)

    def wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        self.demo.children.wait_for(condition, otherwise)

    def at(self, start: float, what: str) -> None:
        self.demo.screen.lines(f"{time.time() - start:.1f} s  {what}")

    def tell(self, traffic: Traffic) -> None:
        """Show how many requests there were, and what became of those that failed."""
        problems = [seen.problem for seen in traffic.visits if seen.problem]
        asked = f"{len(traffic.visits)} requests meanwhile"
        self.demo.screen.promise(asked, f"{len(problems)} failed", kept=not problems)
        for problem, number in Counter(problems).most_common(3):
            self.demo.screen.lines(f"{number} times {problem}")

    def tell_who_answered(self, visits: Sequence[Visit]) -> None:
        """Show what the users have seen, and whether the workers' own counters say the same."""
        seen = Counter(one.server for one in visits if not one.fallback)
        instead = Counter(one.fallback for one in visits if one.fallback)
        reasons = ", ".join(f"{reason} {number}" for reason, number in instead.most_common())
        self.demo.screen.lines(
            f"{seen[SERVERS['leads']]:5} by leads-service\n"
            f"{seen['monolith']:5} by the monolith, for users who have not moved\n"
            f"{instead.total():5} by the monolith instead of leads-service: {reasons}"
        )
        enough = len(visits)
        now = self.settled(self.status, lambda it: it["now"]["legacy"] + it["now"]["modern"] >= enough)["now"]
        expected = {
            "modern": seen[SERVERS["leads"]],
            "legacy": seen["monolith"] + instead.total(),
            "fallbacks": dict(instead),
        }
        counted = {key: now[key] for key in expected}
        same = counted == expected
        self.demo.screen.promise("counted by the workers", "the same" if same else f"{counted}", kept=same)

    def tell_breakers(self, since: float) -> None:
        """Show in how many workers the breaker has opened since a time, and whether it is closed again."""

        def last() -> Mapping[str, str]:
            events = [one for one in self.read("events", "-n", "1000") if one["at"] >= since]
            return {one["worker"]: one["kind"] for one in events if one["kind"].startswith("breaker-")}

        found = self.settled(last, lambda kinds: set(kinds.values()) == {"breaker-closed"})
        closed = sum(kind == "breaker-closed" for kind in found.values())
        told = f"opened in {len(found)} workers, closed again in {closed}"
        self.demo.screen.promise("circuit breakers", told, kept=closed == len(found) > 0)

    # --- a rollback

    def roll_back(self) -> None:
        """Take leads back from everybody at once, and show how long that took."""
        screen, server = self.demo.screen, SERVERS["leads"]
        self.change("set", "leads", "stage=modern", reason="all of them")
        with self.traffic() as traffic:
            self.wait(lambda: len(moved(traffic.visits)) >= 50, "leads-service was not asked")
            self.change("rollback", "leads", reason="something looks odd")
            done = time.time()
            self.wait(lambda: sum(one.began > done for one in traffic.visits) >= 100, "Nobody went on asking")
        self.tell(traffic)
        late = [one.server for one in traffic.visits if one.began > done]
        wrong = sum(name != "monolith" for name in late)
        screen.promise(f"{len(late)} after the command", f"{wrong} by {server}", kept=not wrong)
        written = self.status()["override"]["at"]
        last = max(one.began for one in traffic.visits if one.server == server) - written
        followed = f"{max(last, 0.0):.2f} s after the change was stored"
        screen.lines(f"Followed by all workers: the last request went to {server} {followed}.")
        self.command("status")


def moved(visits: Sequence[Visit], since: float = 0.0) -> list[Visit]:
    """Return those visits of users who have moved, whoever had to answer, that began after `since`."""
    return [one for one in visits if (one.fallback or one.server == SERVERS["leads"]) and one.began > since]


def recovered(visits: Sequence[Visit], number: int = 50) -> bool:
    """Tell whether the last of them all were served by the new code: every worker sends it requests again."""
    return len(visits) >= number and not any(one.fallback for one in visits[-number:])


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
        "marketing forwarded to a Lambda function, each rolled back; leads for some of its users, its "
        "service killed, a rollback by hand. Then keep it running, to be looked at in a browser.",
        epilog="Exit code: 0 all as it should be; 1 a step showed something else, or a server died; "
        "2 the port cannot be used; 130 ended by Ctrl-C.",
    )
    parser.add_argument("--once", action="store_true", help="exit after the replay instead of staying up")
    parser.add_argument(
        "--port", type=port_number, default=0, metavar="N", help="port of the monolith (default: a free one)"
    )
    after = len(STEPS) + 1
    parser.add_argument(
        "--from", type=int, default=1, choices=range(1, after + 1), metavar="STEP", dest="first",
        help=f"begin with this step, {after}: after all of them",
    )  # fmt: skip
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
        code = supervise(folder, listener, options)
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


def supervise(folder: Path, listener: socket.socket, options: argparse.Namespace) -> int:
    """Run the demo with all that it needs around it; leave no process behind."""
    signals = Signals()
    signals.install()
    children = Children(folder, signals)
    try:
        with listener:
            return run_and_stop(children, listener, options)
    except DemoError as problem:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    finally:
        # Once more, for a signal that came before the first line of the other `stop`. There is no third
        # one, because only the first signal is ever raised.
        children.stop()


def run_and_stop(children: Children, listener: socket.socket, options: argparse.Namespace) -> int:
    try:
        return run(children, listener, options)
    finally:
        children.stop()


def run(children: Children, listener: socket.socket, options: argparse.Namespace) -> int:
    """Replay everything; return the exit code, or stay until somebody presses Ctrl-C."""
    screen = Screen.of_stdout()
    print("A Flask monolith is strangled, endpoint by endpoint, inside the process that serves it.\n")
    demo = Demo.start(children, screen, listener)
    screen.note(
        f"\n  The steps are new table files, then commands; the monolith follows while it runs, nothing is\n"
        f"  restarted. Each endpoint is asked {TRIES} times; the time is the median."
    )
    demo.replay(options.first)
    report(screen)
    if not (options.once or screen.differences):
        stay(demo)
    return 1 if screen.differences else 0


def report(screen: Screen) -> None:
    screen.head("Differences" if screen.differences else "Each step showed what it should.")
    for difference in screen.differences:
        print(f"  {difference}")


def stay(demo: Demo) -> NoReturn:
    """Leave leads and marketing forwarded, and watch the children until a signal ends this."""
    demo.children.run("rollback", "--all", "--to-file", "--by", "demo", "--wait", "10")
    demo.apply(AFTERWARDS)
    base = f"http://{HOST}:{demo.monolith.port}"
    strangle = shlex.quote(str(STRANGLE))
    demo.screen.head(f"Open {base}/   ({AFTERWARDS.title})")
    print(
        f"  Sales and Marketing show another server than Projects. Also try:\n"
        f"    curl -i '{base}{PATHS['leads']}?industry=Energy'    the new code filters, the old never did\n"
        f"    cd {shlex.quote(str(demo.table.parent))}\n"
        f"    {strangle} rollback leads                        look at Sales again\n"
        f"    {strangle} set leads stage=canary weight=50      and in several browsers\n"
        f"    {strangle} rollback marketing                    and at Marketing: a Lambda function no more\n"
        f"    {strangle} status\n"
        f"    {strangle} explain {demo.table.name} GET {PATHS['leads']}\n"
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
