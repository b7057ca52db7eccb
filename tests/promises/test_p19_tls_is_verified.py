"""P19: TLS is verified, 1.2 or later, for the name in the table; there is no way round it but one in code."""

import datetime as dt
import logging
import socket
import ssl
import threading

import pytest
import trustme
from tests.transports.upstream import ScriptedUpstream, forever, head, send, tell, until_gone

from promises.drive import PATIENCE, address
from strangle_mw import ConfigError, Route, Tls, Upstream
from strangle_mw.config import load

SERVE = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))]


class Authority:
    def __init__(self, folder):
        self.root = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.root.cert_pem.write_to_path(self.file)

    def serves(self, *names, **more):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.root.issue_cert(*names, **more).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"))


def to(server, authority, **more):
    return Upstream(url=address(server), tls=Tls(ca=authority.file), **more)


def refused(strangled, server, upstream):
    """Ask, be refused; nothing of the request has left."""
    side = strangled([Route("/m/*", to=upstream, fallback="off")])
    seen = side.ask("/m/s3cret", headers=((b"cookie", b"s3cret"),))
    assert (seen.status, side.legacy, side.pool.idle) == (502, [], 0)
    assert server.heads == []
    return seen


def test_a_good_certificate_is_accepted(strangled, authority):
    with ScriptedUpstream(SERVE, context=authority.serves("localhost")) as server:
        side = strangled([Route("/m/*", to=to(server, authority))])
        assert side.ask().body == b"ok"
        side.close()


def test_an_unknown_authority_is_refused(strangled, authority, stranger):
    with ScriptedUpstream(SERVE, context=stranger.serves("localhost")) as server:
        refused(strangled, server, to(server, authority))


def test_without_a_file_the_systems_authorities_count(strangled, authority):
    with ScriptedUpstream(SERVE, context=authority.serves("localhost")) as server:
        refused(strangled, server, Upstream(url=address(server)))


@pytest.mark.parametrize("name", ["other.example", "*.example", "localhost.example", "127.0.0.1"])
def test_a_certificate_for_another_name_is_refused(strangled, authority, name):
    with ScriptedUpstream(SERVE, context=authority.serves(name)) as server:
        refused(strangled, server, to(server, authority))


def test_an_address_must_be_in_the_certificate(strangled, authority):
    with ScriptedUpstream(SERVE, context=authority.serves("localhost")) as server:
        upstream = Upstream(url=address(server).replace("localhost", "127.0.0.1"), tls=Tls(ca=authority.file))
        refused(strangled, server, upstream)


def test_an_expired_certificate_is_refused(strangled, authority):
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    context = authority.serves("localhost", not_after=yesterday)
    with ScriptedUpstream(SERVE, context=context) as server:
        refused(strangled, server, to(server, authority))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.parametrize("verify", [True, False])
def test_old_tls_is_refused(strangled, authority, version, verify):
    context = authority.serves("localhost")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    old = ssl.create_default_context(cafile=authority.file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = version
    with ScriptedUpstream(SERVE, context=context) as server:
        # The server does speak it, or this test would say nothing.
        with (
            socket.create_connection(("127.0.0.1", server.endpoint.port), PATIENCE) as plain,
            old.wrap_socket(plain, server_hostname="localhost") as spoken,
        ):
            assert spoken.version() == version.name.replace("_", ".")
        refused(strangled, server, to(server, authority, verify=verify))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_not_old_is_spoken(strangled, authority, version):
    context = authority.serves("localhost")
    context.minimum_version = context.maximum_version = version
    with ScriptedUpstream(SERVE, context=context) as server:
        side = strangled([Route("/m/*", to=to(server, authority))])
        assert side.ask().body == b"ok"
        assert server.peers[0].sock.version() == version.name.replace("_", ".")
        side.close()


def test_the_name_that_is_asked_for_comes_from_the_table(strangled, authority):
    names = []
    context = authority.serves("localhost")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with ScriptedUpstream(SERVE, context=context) as server:
        side = strangled([Route("/m/*", to=to(server, authority, host="preserve"))])
        assert side.ask(headers=((b"x-forwarded-host", b"evil.example"),)).body == b"ok"
        side.close()
    assert names == ["localhost"]
    assert b"host: h.example\r\n" in server.heads[0]


def test_there_is_no_second_try_in_plain_text(strangled, authority):
    """A server that does not speak TLS sees the start of a handshake, once, and nothing else."""
    kept, gone = [], threading.Event()

    def keep(peer):
        kept.append(peer.read(1))
        send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")(peer)
        until_gone()(peer)

    with ScriptedUpstream([keep, tell(gone)]) as server:
        upstream = Upstream(
            url=address(server).replace("http://127.0.0.1", "https://localhost"), tls=Tls(ca=authority.file)
        )
        refused(strangled, server, upstream)
        assert gone.wait(PATIENCE)
        assert server.connections == 1
    assert kept == [b"\x16"]


def test_verification_can_be_turned_off_in_code_only_and_is_warned_of(strangled, stranger, caplog):
    with ScriptedUpstream(SERVE, context=stranger.serves("other.example")) as server:
        with caplog.at_level(logging.WARNING):
            side = strangled([Route("/m/*", to=Upstream(url=address(server), verify=False))])
        assert "NOT verified" in caplog.text
        assert side.ask().body == b"ok"
        side.close()


@pytest.mark.parametrize("where", ["upstream", "tls"])
def test_and_not_in_a_file(tmp_path, where):
    line = "verify = false" if where == "upstream" else "tls = { verify = false }"
    file = tmp_path / "strangle.toml"
    file.write_text(f'[upstreams.m]\nurl = "https://h"\n{line}\n[[routes]]\npath = "/m"\nto = "m"\n')
    with pytest.raises(ConfigError, match="verify"):
        load(file)


def test_an_unverified_connection_is_not_lent_to_a_verifying_upstream(strangled, stranger, authority):
    with ScriptedUpstream(SERVE, context=stranger.serves("localhost")) as server:
        side = strangled(
            [
                Route("/m/*", to=Upstream(url=address(server), verify=False)),
                Route("/strict", to=to(server, authority), fallback="off"),
            ]
        )
        assert side.ask().body == b"ok"
        assert side.pool.idle == 1
        assert side.ask("/strict").status == 502
        assert side.ask().body == b"ok"
        assert len(server.heads) == 2
        side.close()


def test_nothing_of_the_failure_is_told_to_the_client(strangled, authority, stranger):
    with ScriptedUpstream(SERVE, context=stranger.serves("localhost")) as server:
        seen = refused(strangled, server, to(server, authority))
    assert b"certificate" not in seen.body.lower()
    assert b"localhost" not in seen.body
