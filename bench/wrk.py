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
SCRIPT = """
local paths = {%s}
local requests, turn = {}, 0
init = function(args)
  for index, path in ipairs(paths) do requests[index] = wrk.format("GET", path) end
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    '%s {"requests": %%d, "micros": %%d, "connect": %%d, "read": %%d, "write": %%d, "timeout": %%d,'
    .. ' "status": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What wrk saw; times in microseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


def write_script(folder: Path, name: str, paths: list[str]) -> Path:
    """Write the script that asks for these paths in turn."""
    script = folder / f"{name}.lua"
    script.write_text(SCRIPT % (", ".join(map(json.dumps, paths)), MARK))
    return script


def run(port: int, script: Path, options: Options, seconds: int) -> Result:
    """Load the server for some seconds; any failed request is a `BenchError`."""
    command = [WRK, "-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", str(script)]
    for name, value in HEADERS[options.headers].items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{port}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    return _parse(done.stdout, done.stderr)


def _parse(output: str, complaint: str) -> Result:
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        raise BenchError(f"wrk failed: {(complaint or output).strip()[:200]}")
    seen: dict[str, int] = json.loads(lines[0].removeprefix(MARK))
    wrong = [f"{seen[key]} {key}" for key in ("connect", "read", "write", "timeout", "status") if seen[key]]
    if wrong or not seen["requests"]:
        raise BenchError(f"{seen['requests']} requests, errors: {', '.join(wrong) or 'no answer at all'}")
    per_second = seen["requests"] / seen["micros"] * 1e6
    return Result(seen["requests"], per_second, seen["p50"], seen["p99"])
