"""A WSGI app that has forwarded a request before the server forks: what `gunicorn --preload` makes possible."""

import io
import os

from strangle_mw import Route, strangle


def legacy(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [str(os.getpid()).zfill(5).encode()[-5:]]


wsgi = strangle(legacy, [Route("/m/*", to=os.environ["STRANGLE_TEST_UPSTREAM"])])

_environ = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/m/before",
    "RAW_URI": "/m/before",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
}
assert b"/m/before" in b"".join(wsgi(_environ, lambda *_: None))
