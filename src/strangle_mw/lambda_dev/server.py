"""Puts lambda-dev together: checks all before anything starts, serves, follows changes, leaves no orphan."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from strangle_mw.lambda_dev.changes import changed, look
from strangle_mw.lambda_dev.function import Function
from strangle_mw.lambda_dev.http import Connection
from strangle_mw.lambda_dev.invoke import MAX_REQUEST, InvokeAPI
from strangle_mw.lambda_dev.names import LambdaDevError, missing_module
from strangle_mw.lambda_dev.worker import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from strangle_mw.lambda_dev.changes import Seen
    from strangle_mw.lambda_dev.names import Handler
    from strangle_mw.lambda_dev.terminal import Terminal

INTERVAL: Final = 1.0
"""Seconds between two looks for changed files."""
OWN_VARIABLES: Final = frozenset({"AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "_HANDLER"})
"""Environment variables that only lambda-dev may set."""

_PORTABLE: Final = os.path.join(os.path.dirname(__file__), "portable")  # noqa: PTH118, PTH120
# Each asks the runtime client for something that this machine has not.
_NOT_INHERITED: Final = frozenset(
    {"AWS_LAMBDA_MAX_CONCURRENCY", "_LAMBDA_TELEMETRY_LOG_FD", "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"}
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; `timeout` in seconds, `memory` in MB, `environment` beside the caller's."""

    host: str
    port: int
    workers: int
    timeout: float
    memory: int
    environment: Mapping[str, str]
    reload: bool
    folder: Path


def check(options: Options, handlers: Sequence[Handler]) -> socket.socket:
    """Return the listening socket, or raise `LambdaDevError` with every reason why this cannot start."""
    problems = []
    if find_spec("awslambdaric") is None:
        problems.append("lambda-dev needs one more package: pip install 'strangle-mw[lambda-dev]'")
    problems += [p for handler in handlers if (p := missing_module(handler.module, options.folder))]
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as exc:
        errno = getattr(exc, "errno", None)
        why = os.strerror(errno) if errno else str(exc)
        problems.append(f"cannot listen on {_place(options.host, options.port)}: {why}")
        raise LambdaDevError(problems) from None
    if problems:
        listener.close()
        raise LambdaDevError(problems)
    return listener


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def region() -> str:
    """Return the region that functions are told: the developer's, else AWS's first."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def program(handler: Handler, options: Options) -> Program:
    """Say how to run a function: in the caller's environment with what Lambda documents on top."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    name = handler.shown
    lambda_ = {
        "AWS_DEFAULT_REGION": region(),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(options.memory),
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "lambda-dev",
        "AWS_REGION": region(),
        "LAMBDA_TASK_ROOT": str(options.folder),
        "TZ": ":UTC",
        "_HANDLER": str(handler),
    }
    environment = {**inherited, **lambda_, **options.environment}
    if find_spec("runtime_client") is None:
        paths = [_PORTABLE, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return Program(str(handler), environment, str(options.folder), options.timeout, options.memory)


async def serve(
    options: Options, handlers: Sequence[Handler], listener: socket.socket, terminal: Terminal
) -> None:
    """Serve until SIGINT or SIGTERM; every process that was started has ended when this returns."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    terminal.on_closed = ended.set
    url = f"http://{_place(_reachable(options.host), listener.getsockname()[1])}"
    _introduce(options, handlers, url, terminal)
    seen = await asyncio.to_thread(look, str(options.folder)) if options.reload else {}
    functions = {
        handler.name: Function(
            program(handler, options), options.workers, terminal.output(handler.shown, number)
        )
        for number, handler in enumerate(handlers)
    }
    api = InvokeAPI(functions, region(), _help(handlers, url))
    server = await loop.create_server(lambda: Connection(api.handle, MAX_REQUEST), sock=listener)
    watching = loop.create_task(_watch(options.folder, seen, functions, terminal)) if options.reload else None
    try:
        await ended.wait()
    finally:
        server.close()
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await asyncio.gather(*(function.aclose() for function in functions.values()))


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _introduce(options: Options, handlers: Sequence[Handler], url: str, terminal: Terminal) -> None:
    terminal.line(f"lambda-dev listens on {url}; Ctrl-C ends it", "good")
    if not re.fullmatch(r"127\..*|::1|localhost", options.host):
        terminal.line("Whoever reaches this port runs your functions: it is not for a network.", "bad")
    terminal.line()
    for handler in handlers:
        terminal.line(_toml(handler.shown, url))
        terminal.line()


def _toml(name: str, url: str) -> str:
    return f'[upstreams.{name}]\nlambda = "{name}"\nendpoint_url = "{url}"'


def _help(handlers: Sequence[Handler], url: str) -> str:
    upstreams = "\n\n".join(_toml(handler.shown, url) for handler in handlers)
    return (
        f"strangle lambda-dev: POST {url}/2015-03-31/functions/NAME/invocations with an event as JSON.\n\n"
        f"In a table of strangle-mw:\n\n{upstreams}\n\n"
        f"With the AWS CLI:\n\n"
        f"aws lambda invoke --endpoint-url {url} --no-sign-request --function-name NAME out.json\n"
    )


async def _watch(folder: Path, before: Seen, functions: Mapping[str, Function], terminal: Terminal) -> None:
    """Look for changed files as long as lambda-dev runs; in a thread: a large folder takes a while."""
    while True:
        await asyncio.sleep(INTERVAL)
        after = await asyncio.to_thread(look, str(folder))
        files = changed(before, after)
        before = after
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            terminal.line(f"{files[0]}{more} changed: the code is loaded anew")
            for function in functions.values():
                function.reload()
