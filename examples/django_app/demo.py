"""Replay how the orders of a Django monolith move to a service that knows its users, and back again.

Starts the monolith (gunicorn) and the orders service (uvicorn) as processes of their own, in a temporary
folder with a database of its own. A user logs in on the monolith and sees orders by the service; then they
are rolled back by `manage.py strangle`, while everything runs.

    python examples/django_app/demo.py --once
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, ProxyHandler, build_opener

HERE = Path(__file__).resolve().parent
OTHER = HERE.parent / "flask_app"

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from examples.flask_app.demo_servers import (
        Child,
        Children,
        DemoError,
        Signals,
        bind,
        clean_environment,
        in_time,
        listen,
    )
    from examples.flask_app.demo_users import HOST, PATIENCE
else:  # how processes are started and ended is written once, for both demos
    sys.path.append(str(OTHER))
    from demo_servers import Child, Children, DemoError, Signals, bind, clean_environment, in_time, listen
    from demo_users import HOST, PATIENCE

WORKERS = 2
"""Processes of the monolith: what changes while they run has to reach each of them."""
MONOLITH, SERVICE = "the monolith", "the orders service"
GUNICORN = ("gunicorn", "-c", str(OTHER / "gunicorn_conf.py"), "-w", str(WORKERS), "monolith.wsgi", "-b")
UVICORN = ("uvicorn", "orders_service.app:app", "--timeout-keep-alive", "10", "--fd")


# --- processes


class Servers(Children):
    """Runs Python modules as servers, and `manage.py`, all with one environment."""

    def serve(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], place: socket.socket
    ) -> Child:
        """Serve on a socket that is bound already; the last argument of `command` takes its descriptor."""
        log = self.folder / f"{name}.log"
        number = f"{'fd://' if command[-1] == '-b' else ''}{place.fileno()}"
        with self.signals.delayed(), log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, number],
                cwd=HERE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[place.fileno()],
                # Ctrl-C in a terminal goes to the whole group: the demo alone shall get it and end the rest.
                start_new_session=True,
            )
            child = Child(name, place.getsockname()[1], log, process, 1)
            self.all.append(child)
        return child

    def manage(self, *arguments: str) -> str:
        """Run a command of Django's by the script that visitors may use as well; it has to succeed."""
        with self.signals.delayed(), in_time(f"manage {arguments[0]}"):
            done = subprocess.run(
                [self.folder / "manage", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE,
                start_new_session=True,
                check=False,
            )
        if done.returncode:
            raise DemoError(f"manage {shlex.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr


def prepare(folder: Path, service_port: int) -> dict[str, str]:
    """Write the table of this run and the script `manage`; return the environment of all processes."""
    table = (HERE / "strangle.toml").read_text(encoding="utf-8")
    (folder / "strangle.toml").write_text(table.replace(":8082", f":{service_port}"), encoding="utf-8")
    added = {
        "MONOLITH_DATA": str(folder),
        "STRANGLE_ROUTES": str(folder / "strangle.toml"),
        # Known to the two sides only, and gone with the folder.
        "ORDERS_SECRET": secrets.token_hex(),
        "DJANGO_SECRET_KEY": secrets.token_hex(),
        "PYTHONIOENCODING": "utf-8",
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in added.items())
    command = shlex.join([sys.executable, str(HERE / "manage.py")])
    script = folder / "manage"
    script.write_text(f'#!/bin/sh\n{exports}exec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return clean_environment() | added


# --- a visitor


@dataclass(frozen=True, slots=True)
class Page:
    """What a visitor got: `early` if a piece was there before the last one was written."""

    status: int
    text: str
    early: bool = False

    @property
    def server(self) -> str:
        """Who says to have made it, as the footer has it."""
        found = re.search(r"Served by <b>(.+?)</b>", self.text)
        return found[1] if found else "nobody"

    @property
    def user(self) -> str:
        found = re.search(r"for <b>(.+?)</b>", self.text)
        return found[1] if found else "nobody"

    @property
    def orders(self) -> list[int]:
        """The numbers of the orders in a list, as they come."""
        return [int(number) for number in re.findall(r'href="/orders/(\d+)/"', self.text)]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser, nearly: keeps cookies, follows redirects, fills in forms."""

    port: int
    opener: OpenerDirector = field(
        default_factory=lambda: build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))
    )

    def get(self, path: str) -> Page:
        return self._open(path, None)

    def submit(self, path: str, **values: str) -> Page:
        """Send the form at `path`, with the token that came along with it."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path).text)
        if token is None:
            raise DemoError(f"{path} has no form")
        return self._open(path, {"csrfmiddlewaretoken": token[1], **values})

    def _open(self, path: str, form: Mapping[str, str] | None) -> Page:
        body = None if form is None else urlencode(form).encode()
        try:
            answer = self.opener.open(f"http://{HOST}:{self.port}{path}", body, PATIENCE)
        except HTTPError as error:  # an answer like any other
            answer = error
        with answer:
            first, arrived = answer.read1(65536), time.time()
            rest = answer.read()
        text = (first + rest).decode()
        last = text.rstrip().rpartition(",")[2]
        written = float(last) if re.fullmatch(r"\d+\.\d+", last) else 0.0
        return Page(answer.status, text, bool(rest) and arrived < written)


# --- the replay


@dataclass(slots=True)
class Demo:
    """The monolith, the service beside it, and what did not go as it should."""

    servers: Servers
    monolith: Child
    service: Child
    differences: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, servers: Servers, listener: socket.socket) -> Demo:
        """Set up the database, start both sides and wait until they answer."""
        with bind() as place:
            environment = prepare(servers.folder, place.getsockname()[1])
            servers.manage("migrate", "--verbosity=0")
            print(f"  {servers.manage('seed').strip()}\n")
            monolith = servers.serve("monolith", GUNICORN, environment, listener)
            orders = environment | {"ORDERS_DATABASE": str(servers.folder / "monolith.db")}
            service = servers.serve("orders-service", UVICORN, orders, place)
        for child, path in ((monolith, "/"), (service, "/healthz")):
            servers.wait_for(partial(answers, child.port, path), f"{child.name} did not answer")
            print(f"  {child.name:<16} http://{HOST}:{child.port:<6} pid {child.process.pid}")
        return cls(servers, monolith, service)

    def see(self, what: str, wanted: object, seen: object) -> None:
        """Show one thing, and remember it if it is not as it should be."""
        good = wanted == seen
        print(f"  {'ok' if good else 'NO'} {what:<52} {seen}{'' if good else f'   wanted: {wanted}'}")
        if not good:
            self.differences.append(f"{what}: wanted {wanted}, got {seen}")

    def command(self, *arguments: str, lines: int = 100) -> None:
        """Run `manage.py strangle` and show it, or its first lines."""
        print(f"  $ manage.py strangle {shlex.join(arguments)}")
        found = self.servers.manage("strangle", *arguments).splitlines()
        for line in found[:lines]:
            print(f"      {line}".rstrip())
        if found[lines:]:
            print(f"      ... {len(found) - lines} lines more")

    def replay(self) -> None:
        alice = Visitor(self.monolith.port)
        print("\nAlice logs in on the monolith, and her orders come from the service")
        page = alice.submit("/accounts/login/", username="alice", password="demo")
        self.see_orders(page, SERVICE, [6, 4, 3, 1])
        page = alice.get("/orders/6/")
        self.see("one of them", (200, SERVICE), (page.status, page.server))
        self.see("one of Bob's", 404, alice.get("/orders/5/").status)
        self.see("not logged in", 401, Visitor(self.monolith.port).get("/orders/").status)
        self.see("the service asked directly", 401, Visitor(self.service.port).get("/orders/").status)

        print("\nWhat has not moved is the monolith's")
        page = alice.submit("/orders/new/", **{"product-0": "2", "product-2": "1"})
        self.see("a new order, shown by the service", (200, SERVICE), (page.status, page.server))
        page = alice.get("/orders/export/")
        self.see(
            "an export: a piece came before the last was written", (200, True), (page.status, page.early)
        )
        page = alice.get("/accounts/profile/")
        self.see("her profile", (200, MONOLITH, "alice"), (page.status, page.server, page.user))

        print("\nHow far it has come")
        self.command("inventory", lines=12)

        print("\nThe orders are rolled back, while everything runs")
        self.command("rollback", "orders", "--by", "demo", "--reason", "something looks odd", "--wait", "10")
        self.see_orders(alice.get("/orders/"), MONOLITH, [7, 6, 4, 3, 1])

    def see_orders(self, page: Page, server: str, numbers: Sequence[int]) -> None:
        self.see("who made the list", server, page.server)
        self.see("for whom", "alice", page.user)
        self.see("which orders, newest first", list(numbers), page.orders)

    def stay(self) -> NoReturn:
        """Go back to the table of the file, and watch the children until a signal ends this."""
        self.servers.manage("strangle", "rollback", "--all", "--to-file", "--by", "demo", "--wait", "10")
        manage = shlex.quote(str(self.servers.folder / "manage"))
        print(
            f"\nOpen http://{HOST}:{self.monolith.port}/   and log in as alice or bob, password demo\n"
            f"  The footer of each page says who made it. Also try:\n"
            f"    {manage} strangle rollback orders             reload: still logged in, by the monolith\n"
            f"    {manage} strangle rollback orders --to-file   and back\n"
            f"    {manage} strangle status\n"
            f"    {manage} strangle inventory\n"
            f"  Ctrl-C stops everything."
        )
        while True:
            self.servers.check()
            time.sleep(0.2)


def answers(port: int, path: str) -> bool:
    with suppress(OSError, HTTPException):
        return Visitor(port).get(path).status == 200
    return False


# --- the program


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Replay how the orders of a Django monolith move to a service of their own, and back. "
        "Then keep it running, to be looked at in a browser.",
        epilog="Exit code: 0 all as it should be; 1 something else was seen, or a server died; "
        "2 the port cannot be used; 130 ended by Ctrl-C.",
    )
    parser.add_argument("--once", action="store_true", help="exit after the replay instead of staying up")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port of the monolith (default: any)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        listener = listen(options.port)
    except (OSError, OverflowError) as problem:
        print(f"demo: port {options.port} of {HOST} cannot be used: {problem}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="strangle-orders-"))
    keep = True
    try:
        code = supervise(folder, listener, once=options.once)
        keep = code != 0
    except SystemExit:
        keep = False
        with suppress(OSError):  # the terminal itself may have gone
            print("\ndemo: stopped, no process is left", file=sys.stderr)
        raise
    finally:
        if keep:
            print(f"demo: logs, data and table are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def supervise(folder: Path, listener: socket.socket, *, once: bool) -> int:
    """Run the demo with all that it needs around it; leave no process behind."""
    signals = Signals()
    signals.install()
    servers = Servers(folder, signals)
    try:
        with listener:
            return run(servers, listener, once=once)
    except DemoError as problem:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    finally:
        servers.stop()


def run(servers: Servers, listener: socket.socket, *, once: bool) -> int:
    print("The orders of a Django monolith move to a service of their own.\n")
    demo = Demo.start(servers, listener)
    demo.replay()
    print("\nDifferences" if demo.differences else "\nAll as it should be.")
    for difference in demo.differences:
        print(f"  {difference}")
    if not (once or demo.differences):
        demo.stay()
    return 1 if demo.differences else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(main())
    except BrokenPipeError:
        # Whoever read (`head`, say) has gone; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
