"""The load generator: one run of wrk over a rotating list of paths, and its result without rounding."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.options import HEADERS
from bench.processes import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.options import Options

WRK = "wrk"
MARK = "bench-result"
PATIENCE = 30
"""Seconds that one answer may take: the slowest peers need some for 256 requests at a time."""
MOST_PREPARED = 8 << 20
"""Bytes of bodies that wrk keeps ready."""
SCRIPT = """
local paths = {%s}
local body = %s
local requests, turn = {}, 0
init = function(args)
  for index, path in ipairs(paths) do
    requests[index] = wrk.format(body and "POST" or "GET", path, wrk.headers, body)
  end
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    '%s {"requests": %%d, "bytes": %%d, "micros": %%d, "connect": %%d, "read": %%d, "write": %%d,'
    .. ' "timeout": %%d, "status": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, summary.bytes, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """What wrk asks for, and the least bytes that one answer has."""

    file: Path
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What wrk saw; times in microseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


def write_script(
    folder: Path, name: str, paths: list[str], *, body: int | None = None, answer: int = 0
) -> Script:
    """Write the script that asks for these paths in turn: by GET, or by POST with a body of so many bytes."""
    text = "nil" if body is None else f'string.rep("x", {body})'
    prepared = paths[: max(1, MOST_PREPARED // (body or 1))]
    script = folder / f"{name}.lua"
    script.write_text(SCRIPT % (", ".join(map(json.dumps, prepared)), text, MARK))
    return Script(script, answer)


def run(port: int, script: Script, options: Options, seconds: int, *, warm_up: bool = False) -> Result:
    """Load the server for some seconds; any failed request is a `BenchError`, no answer only if it counts."""
    command = [WRK, "-t1", f"-c{options.connections}", f"-d{seconds}s", f"--timeout={PATIENCE}s"]
    command += ["-s", str(script.file)]
    for name, value in HEADERS[options.headers].items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{port}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    result = _parse(done.stdout, done.stderr, script)
    if not result.requests and not warm_up:
        raise BenchError(f"no answer within {seconds} s")
    return result


def _parse(output: str, complaint: str, script: Script) -> Result:
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        raise BenchError(f"wrk failed: {(complaint or output).strip()[:200]}")
    seen: dict[str, int] = json.loads(lines[0].removeprefix(MARK))
    wrong = [f"{seen[key]} {key}" for key in ("connect", "read", "write", "timeout", "status") if seen[key]]
    if wrong:
        raise BenchError(f"{seen['requests']} requests, errors: {', '.join(wrong)}")
    if seen["bytes"] < seen["requests"] * script.answer:
        raise BenchError(f"answers were too short: {seen['bytes']:,} bytes in {seen['requests']:,} answers")
    per_second = seen["requests"] / seen["micros"] * 1e6
    return Result(seen["requests"], per_second, seen["p50"], seen["p99"])
