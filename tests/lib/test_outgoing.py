"""Requests to places that users name: whatever they answer, and whatever they do not, it ends and it is bounded."""

import contextlib
import gc
import gzip
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from healthmon.lib import outgoing
from healthmon.lib.addresses import Guard
from healthmon.lib.outgoing import Answer, Refused, Unreachable
from tests.support import target as answers
from tests.support.target import Seen, TargetServer, Wire, redirect, reply

LOCAL = Guard((ip_network("127.0.0.0/8"),))
NOBODY = Guard()
SHORT = 0.3  # seconds: how long a hostile server is given here


@pytest.fixture(scope="module", autouse=True)
def _collects_quickly() -> Iterator[None]:
    gc.freeze()  # what was there before need not be looked through after every test
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """No thread and no socket outlives a request."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()  # pytest turns a ResourceWarning of a lost socket into a failure


@pytest.fixture
def server() -> Iterator[TargetServer]:
    with TargetServer() as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[TargetServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with TargetServer(tls=context) as running:
        yield running


@pytest.fixture
def ca_file(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield path


def post(url: str, *, guard: Guard = LOCAL, timeout: float = 10, **options: str) -> Answer:
    return outgoing.post(url, b"{}", {"webhook-id": "msg_1"}, guard=guard, timeout=timeout, **options)


def test_posts_the_body_and_the_headers_and_nothing_of_its_own(server):
    assert post(server.url("/hook?a=1")) == Answer(200, "ok", None)
    [seen] = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/hook?a=1", b"{}")
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",  # what is cut at 64 KB must not have been compressed
        "content-length": "2",
        "webhook-id": "msg_1",
    }


# --- the guard ----------------------------------------------------------------------------------------------

REFUSED = [
    # host as it stands in the URL; all of them are this machine, where a server listens
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::]",
    "[::1]",
]


@pytest.mark.parametrize("host", REFUSED)
def test_refuses_this_machine_by_any_name_without_a_packet(server, host):
    with pytest.raises(Refused, match=" is "):
        post(server.url(host=host), guard=NOBODY)
    assert server.connections == 0


def test_refuses_over_tls_too(tls_server):
    with pytest.raises(Refused):
        post(tls_server.url(), guard=NOBODY)
    assert tls_server.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_returns_a_redirect_instead_of_following_it(server, status):
    server.answers["/here"] = redirect(server.url("/there"), status)
    assert post(server.url("/here")).status_code == status
    assert [seen.path for seen in server.seen] == ["/here"]


PROXIES = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]


def test_ignores_proxies_of_the_environment(server, monkeypatch):
    with TargetServer() as proxy:
        for name in PROXIES:
            monkeypatch.setenv(name, proxy.url())
        assert post(server.url()).status_code == 200
        assert (server.connections, proxy.connections) == (1, 0)


TARGETS = [
    # path and query of the URL, as they are asked for
    ("", "/"),
    ("?a=1", "/?a=1"),
    ("/a%2Fb/c;d?e=%20&f[]=1#nobody-needs-to-know", "/a%2Fb/c;d?e=%20&f[]=1"),
    ("/caf\u00e9?q=\u2620", "/caf%C3%A9?q=%E2%98%A0"),
    ('/"<{|}>^`', "/%22%3C%7B%7C%7D%3E%5E%60"),
]


@pytest.mark.parametrize(("given", "asked"), TARGETS)
def test_asks_for_the_path_in_ascii(server, given, asked):
    post(server.url("") + given)
    assert server.seen[0].path == asked


def test_reads_the_certificates_once(ca_file):
    assert outgoing._trust("") is outgoing._trust("")
    assert outgoing._trust(ca_file) is not outgoing._trust("")


def test_ignores_netrc_and_the_environments_certificates(server, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    post(server.url())
    assert "authorization" not in server.seen[0].headers


# --- peers that take their time -----------------------------------------------------------------------------


def drip_headers(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.send(b"X-A: b\r\n")
        wire.wait(0.1)


def drip_status_line(wire: Wire, seen: Seen) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 100:
        wire.send(bytes([byte]))
        wire.wait(0.1)


def go_on_for_ever(wire: Wire, seen: Seen) -> None:
    while True:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.wait(0.05)


def drip_chunks(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        wire.send(b"1\r\n.\r\n")
        wire.wait(0.05)


def drip_a_redirects_body(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 100000\r\n\r\n")
    while True:
        wire.send(b".")
        wire.wait(0.05)


SLOW = [
    answers.drip, answers.hang, drip_headers, drip_status_line, drip_chunks, go_on_for_ever, drip_a_redirects_body,
]  # fmt: skip


@pytest.mark.parametrize("answer", SLOW, ids=lambda answer: answer.__name__)
def test_hangs_up_on_whoever_takes_too_long(server, answer):
    server.default = answer
    with pytest.raises(Unreachable, match=r"^There was no answer within 0\.3 s\.$"):
        post(server.url(), timeout=SHORT)


@pytest.mark.parametrize(
    "answer", [answers.drip, answers.hang, drip_headers], ids=lambda answer: answer.__name__
)
def test_hangs_up_within_tls_too(tls_server, ca_file, answer):
    tls_server.default = answer
    with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
        post(tls_server.url(), timeout=SHORT, ca_file=ca_file)
    assert len(tls_server.seen) == 1, "the session itself was sound"


@contextlib.contextmanager
def listening(backlog: int = 5) -> Iterator[int]:
    """A port where connections are taken by the kernel and nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener.getsockname()[1]


def test_hangs_up_in_the_middle_of_a_tls_handshake():
    with listening() as port, pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
        post(f"https://127.0.0.1:{port}/", timeout=SHORT)


def test_gives_up_connecting():
    with listening(backlog=0) as port, contextlib.ExitStack() as taken:
        for _ in range(3):  # the queue is full: the kernel drops what comes next
            waiting = taken.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            post(f"http://127.0.0.1:{port}/", timeout=SHORT)


def test_gives_up_sending_to_whoever_does_not_read():
    with listening() as port, pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
        outgoing.post(f"http://127.0.0.1:{port}/", b"x" * 50_000_000, {}, guard=LOCAL, timeout=SHORT)


# --- peers that break off or talk nonsense --------------------------------------------------------------------


def bad_chunk(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n")


def bad_status(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 99999 OK\r\n\r\n")


BROKEN = [
    # answer, end of the sentence
    (answers.hang_up, "hung up."),
    (answers.not_http, "hung up."),
    (answers.endless_headers, "hung up."),
    (answers.endless_header_line, "hung up."),
    (bad_status, "hung up."),
]


@pytest.mark.parametrize(("answer", "end"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_says_so_when_the_other_side_breaks_off(server, answer, end):
    server.default = answer
    with pytest.raises(Unreachable) as failure:
        post(server.url())
    assert str(failure.value).endswith(end)


@pytest.mark.parametrize("answer", [answers.half_body, bad_chunk], ids=lambda answer: answer.__name__)
def test_takes_the_status_of_an_answer_whose_body_breaks_off(server, answer):
    server.default = answer
    assert post(server.url()).status_code == 200


def test_says_so_when_nobody_listens():
    with listening() as port:
        pass
    with pytest.raises(Unreachable, match="could not be connected to"):
        post(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 64 + ".example"])
def test_says_so_when_the_name_does_not_resolve(host):
    with pytest.raises(Unreachable, match=r"name could not be resolved|could not be sent"):
        post(f"http://{host}/")


def test_says_so_when_the_certificate_is_not_to_be_trusted(tls_server, authority, ca_file):
    with pytest.raises(Unreachable, match=r"^Its TLS certificate could not be verified\.$"):
        post(tls_server.url())
    with pytest.raises(Unreachable, match=r"^Its TLS certificate could not be verified\.$"):
        post(tls_server.url(host="localhost"), ca_file=ca_file)  # sound, but for another host
    assert tls_server.seen == []
    assert post(tls_server.url(), ca_file=ca_file).status_code == 200


def test_says_so_when_the_other_side_speaks_no_tls():
    def greet(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example.com ESMTP ready\r\n")
            connection.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        with pytest.raises(Unreachable, match=r"^A TLS connection could not be made\.$"):
            post(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join(5)


# --- bodies ---------------------------------------------------------------------------------------------------


def huge_redirect(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n")
    answers._flood(wire, b"x" * 65_536)


@pytest.mark.parametrize(("answer", "status"), [(answers.huge_body, 200), (huge_redirect, 302)])
def test_reads_no_more_than_it_must_of_a_body_without_end(server, answer, status):
    server.default = answer
    assert post(server.url()) == Answer(status, "x" * outgoing.EXCERPT_CHARS, None)


def test_does_not_unpack_a_bomb(server):
    server.default = reply(200, gzip.compress(b"\0" * 50_000_000), [("Content-Encoding", "gzip")])
    assert len(post(server.url()).excerpt) <= outgoing.EXCERPT_CHARS


EXCERPTS = [
    # body, excerpt
    (b"", ""),
    (b"plain", "plain"),
    (b"  two\r\n\tlines  \n", "two lines"),
    (b"\x1b[31mred\x07\x00", "[31mred"),  # no escape sequence reaches a terminal
    ("caf\u00e9 \u202egnp.exe".encode(), "café gnp.exe"),  # … nor a change of direction a browser
    (b"\xff\xfe", "\ufffd\ufffd"),
    (b"y" * 1000, "y" * 200),
]


@pytest.mark.parametrize(("body", "excerpt"), EXCERPTS)
def test_shows_the_start_of_the_body_on_one_printable_line(server, body, excerpt):
    server.default = reply(500, body)
    assert post(server.url()) == Answer(500, excerpt, None)


OBJECTS = [
    # body, what is read of it
    (b'{"retry_after": 1.5}', {"retry_after": 1.5}),
    (b"[1]", {}),
    (b"plain", {}),
    (b"", {}),
    (b"\xff", {}),
    (b"[" * 60_000, {}),
    (b'{"a": "' + b"x" * outgoing.MOST_BYTES + b'"}', {}),
]


@pytest.mark.parametrize(("body", "value"), OBJECTS, ids=range(len(OBJECTS)))
def test_reads_a_json_object_or_nothing(server, body, value):
    server.default = reply(400, body)
    assert post(server.url()).json == value


# --- Retry-After ----------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RETRY_AFTER = [
    # header, seconds
    (None, None),
    ("", None),
    ("0", 0),
    ("120", 120),
    (" 7 ", 7),
    ("999999999999", 999_999_999_999),  # the caller has a cap
    ("9999999999999", None),
    ("-5", None),
    ("1.5", None),
    ("soon", None),
    ("\u0667", None),  # a digit, but not of the protocol
    ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
    ("Sunday, 01-Mar-26 12:01:00 GMT", 60),
    ("Sun, 01 Mar 2026 13:01:00 +0100", 60),
    ("Sun, 01 Mar 2026 12:01:00", 60),  # no zone: GMT
    ("Sun, 01 Mar 2026 11:00:00 GMT", 0),  # it is past
    ("Sun, 31 Feb 2026 12:00:00 GMT", None),
    ("Sun, 01 Mar 2026 12:01:00 +9999", None),
]


@pytest.mark.parametrize(("header", "seconds"), RETRY_AFTER)
def test_reads_retry_after_in_both_forms(header, seconds):
    assert outgoing.retry_after(header, NOW) == seconds


@given(st.text(max_size=60) | st.from_regex(r"(Sun, )?\d{1,2} Mar \d{1,5} [\d:]{0,9} [+-]?[\dA-Z]{0,6}"))
def test_makes_nothing_but_seconds_or_none_of_any_retry_after(header):
    seconds = outgoing.retry_after(header, NOW)
    assert seconds is None or seconds >= 0


def test_hands_on_retry_after(server):
    server.default = reply(429, headers=[("Retry-After", "30")])
    assert post(server.url()).retry_after_seconds == 30
