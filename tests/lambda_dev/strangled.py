"""Small legacy apps with functions of lambda-dev as upstreams, served by the servers of the tests."""

import os

from strangle_mw import strangle

URL = f"http://127.0.0.1:{os.environ.get('LAMBDA_DEV_PORT', '1')}"
TABLE = {
    "upstreams": {
        name: {"lambda": function, "endpoint_url": URL, "format": format_, "timeout": 20.0}
        for name, function, format_ in (
            ("two", "web:live", "2.0"),
            ("rest", "web", "rest"),
            ("alb", "web:7", "alb"),
            ("broken", "broken", "2.0"),
            ("absent", "absent", "2.0"),
        )
    },
    "routes": [{"path": f"/{name}/*", "to": name} for name in ("two", "rest", "alb", "broken", "absent")],
}


def legacy_wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"legacy"]


async def legacy_asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"legacy"})


wsgi = strangle(legacy_wsgi, TABLE)
asgi = strangle(legacy_asgi, TABLE)
