"""One GET as the servers would hand it to an app: an ASGI scope, a WSGI environ."""

from __future__ import annotations

from typing import Any


def scope(path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return a scope like uvicorn's."""
    fields = {"Host": "127.0.0.1:8000", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 40_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "state": {},
    }


def environ(path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return an environ like gunicorn's."""
    fields = {"Host": "127.0.0.1:8000", **headers}
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "gunicorn",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()},
    }
