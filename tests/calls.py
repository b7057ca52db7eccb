"""One request to a WSGI app that is called by hand, without a server."""

import io


def call(app, path="/m/x"):
    """Ask for a path with GET; return the body."""
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "RAW_URI": path, "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "h", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http", "REMOTE_ADDR": "192.0.2.1",
    }  # fmt: skip
    result = app(environ, lambda status, headers, exc_info=None: None)
    body = b"".join(result)
    if hasattr(result, "close"):
        result.close()
    return body
