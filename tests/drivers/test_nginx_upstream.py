"""Forwarding to a real nginx: the upstream that most modern services stand behind."""

import os
import subprocess

import pytest

from programs import require
from servers import free_port, serve, talk
from servers import request as written

CONFIG = """
{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; default_type text/plain; gzip on; gzip_min_length 1; gzip_types text/plain; gzip_proxied any; etag on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /m/hello {{ return 200 "$request_uri $host\\n"; }}
    location /m/empty {{ return 204; }}
    location /m/moved {{ return 302 /elsewhere; }}
    location /m/files/ {{ alias {folder}/; }}
    location /m/limit {{ client_max_body_size 10; proxy_pass http://127.0.0.1:1; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    program = require("nginx")
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not read the folder
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, user=user))
    (folder / "text.txt").write_text("text " * 100)
    child = subprocess.Popen(
        [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(10)


@pytest.fixture(scope="module", params=["uvicorn-httptools", "gunicorn-gthread"])
def front(request, nginx):
    with serve(request.param, "drivers.strangled", STRANGLE_TEST_UPSTREAM=nginx) as port:
        while talk(port, written("GET", "/m/hello")).status == 502:
            pass  # nginx is still starting
        yield port


def test_the_request_line_arrives(front):
    assert talk(front, written("GET", "/m/hello/a%2Fb?c=%zz")).body == b"/m/hello/a%2Fb?c=%zz 127.0.0.1\n"


def test_no_body_where_none_may_be(front):
    for method, target, status in (("GET", "/m/empty", 204), ("HEAD", "/m/hello", 200)):
        reply = talk(front, written(method, target))
        assert (reply.status, reply.body) == (status, b"")


def test_redirects_are_passed_on(front):
    assert talk(front, written("GET", "/m/moved")).header("location").endswith("/elsewhere")


def test_a_compressed_answer_stays_compressed(front):
    import gzip

    reply = talk(front, written("GET", "/m/files/text.txt", [("Accept-Encoding", "gzip")]))
    assert reply.header("content-encoding") == "gzip"
    assert gzip.decompress(reply.body) == b"text " * 100
    assert talk(front, written("GET", "/m/files/text.txt")).body == b"text " * 100


def test_conditional_and_partial_requests_pass(front):
    etag = talk(front, written("GET", "/m/files/text.txt")).header("etag")
    assert talk(front, written("GET", "/m/files/text.txt", [("If-None-Match", etag)])).status == 304
    part = talk(front, written("GET", "/m/files/text.txt", [("Range", "bytes=0-3")]))
    assert (part.status, part.body, part.header("content-range")) == (206, b"text", "bytes 0-3/500")


def test_errors_of_the_upstream_are_its_own(front):
    assert talk(front, written("GET", "/m/files/none")).status == 404
    assert talk(front, written("POST", "/m/limit", [("Content-Length", "11")], b"x" * 11)).status == 413
    assert talk(front, written("GET", "/m/limit")).status == 502
