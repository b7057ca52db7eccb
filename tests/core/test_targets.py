import pytest

from strangle_mw.core.patterns import PatternError
from strangle_mw.core.targets import is_target, parse_endpoint


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority", "base"),
    [
        ("http://leads", "http", "leads", 80, b"leads", b""),
        ("http://leads:80/", "http", "leads", 80, b"leads", b""),
        ("http://Leads:8080/base/", "http", "leads", 8080, b"leads:8080", b"/base"),
        ("https://h.example", "https", "h.example", 443, b"h.example", b""),
        ("https://h.example:80", "https", "h.example", 80, b"h.example:80", b""),
        ("http://[::1]:8080", "http", "::1", 8080, b"[::1]:8080", b""),
        ("http://b\u00fccher.example", "http", "xn--bcher-kva.example", 80, b"xn--bcher-kva.example", b""),
    ],
)
def test_endpoint(url, scheme, host, port, authority, base):
    endpoint = parse_endpoint(url)
    assert (endpoint.scheme, endpoint.host, endpoint.port, endpoint.authority, endpoint.base) == (
        scheme,
        host,
        port,
        authority,
        base,
    )


def test_unix_socket():
    endpoint = parse_endpoint("unix:/run/x.sock")
    assert (endpoint.scheme, endpoint.socket, endpoint.authority) == ("unix", "/run/x.sock", b"localhost")
    assert str(endpoint) == "unix:/run/x.sock"


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///x", "ftp://x", "//x", "x", "http://u@x", "http://x?a", "http://x?", "http://x#a", "http://x:0x1", "http://x/../y",
     "http://x//y", "http://a b", "http://x\r\ny", "http://x/%2f", "unix:", "unix:x"],
)  # fmt: skip
def test_unusable(url):
    with pytest.raises(PatternError):
        parse_endpoint(url)


@pytest.mark.parametrize(
    "text", ["http://x", "https://x", "unix:/x", "lambda:f", "asgi:a:b", "wsgi:a:b", "ftp://x"]
)
def test_targets_are_no_names(text):
    assert is_target(text)
    assert not is_target("leads")
