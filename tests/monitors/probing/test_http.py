"""What a probe of HTTP sees, against a real server that behaves and misbehaves. The tables are the specification."""

import datetime
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pycurl
import pytest
import trustme

from healthmon.lib.addresses import Guard
from healthmon.lib.sealing import new_key, seal
from monitors.probing import http
from monitors.probing.loop import Loop
from monitors.probing.outcome import FAILING, TARGET_CONTEXT, Outcome, Reason
from monitors.probing.probe import Surroundings
from tests.monitors.probing.conftest import KEY, LOCAL, make_target, probe_all
from tests.support.target import (
    Seen,
    TargetServer,
    Wire,
    drip,
    early_hints,
    echo,
    endless_header_line,
    endless_headers,
    half_body,
    half_headers,
    hang,
    hang_up,
    huge_body,
    not_http,
    redirect,
    reply,
)


def empty_answers(wire: Wire, seen: Seen) -> None:
    """Send answers of the smallest size there is, without end: curl has another word for these."""
    wire.send(b"HTTP/1.1 103 E\r\n\r\n" * 50_000)


def endless_trailers(wire: Wire, seen: Seen) -> None:
    """Send headers behind a chunked body, without end."""
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X: y\r\n" * 50_000)


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (200, "200-299", Reason.ok),
        (204, "200-299", Reason.ok),
        (404, "200-299", Reason.status),
        (404, "200,404", Reason.ok),
        (503, "500-599", Reason.ok),
        (304, "200-299", Reason.status),
        (302, "302", Reason.ok),  # a 302 that names no other place is an answer like any other
        (599, "200-299", Reason.status),
    ],
)
def test_holds_the_status_against_what_is_expected(target, look, status, expected, reason):
    target.default = reply(status)
    outcome = look(target.url(), expected_status=expected)
    assert (outcome.reason, outcome.status_code) == (reason, status)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang, Reason.timeout),
        (drip, Reason.timeout),
        (hang_up, Reason.connect),
        (half_headers, Reason.connect),
        (half_body, Reason.body),
        (not_http, Reason.connect),
        (huge_body, Reason.too_large),
        (endless_headers, Reason.too_large),
        (endless_header_line, Reason.too_large),
        (early_hints, Reason.too_large),
        (empty_answers, Reason.too_large),
        (endless_trailers, Reason.too_large),
        (reply(body=b"x" * 1_048_577), Reason.too_large),
        (reply(body=b"x" * 1_048_576), Reason.ok),
    ],
)
def test_names_what_a_hostile_server_does(target, look, answer, reason):
    target.default = answer
    outcome = look(target.url(), timeout_seconds=1)
    assert outcome.reason is reason
    assert bool(outcome.detail) == (reason is not Reason.ok)
    assert outcome.total_ms < 3000


def test_looks_at_the_last_answer_alone(target, look):
    target.default = lambda wire, seen: wire.send(
        b"HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\n"
        b"HTTP/1.1 500 No\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    outcome = look(target.url())
    assert (outcome.reason, outcome.status_code) == (Reason.status, 500)
    assert set(outcome.evidence["headers"]) == {"X-Mine", "Transfer-Encoding", "X-Trailer"}


def test_gives_each_phase_its_own_duration(target, look):
    target.default = reply(delay=0.05)
    outcome = look(target.url(host="localhost"))
    assert outcome.reason is Reason.ok
    assert outcome.first_byte_ms >= 50
    assert outcome.total_ms >= outcome.dns_ms + outcome.connect_ms + outcome.first_byte_ms
    assert outcome.tls_ms is None
    assert outcome.detail == ""
    assert outcome.evidence is None
    assert not outcome.reused


def test_calls_an_answer_slow_past_the_threshold(target, look):
    target.default = reply(delay=0.05)
    assert look(target.url(), degraded_after_ms=10).reason is Reason.slow
    assert look(target.url(), degraded_after_ms=5000).reason is Reason.ok


def test_says_that_nobody_listens(target, look):
    target.stop_listening()
    outcome = look(target.url())
    assert (outcome.reason, outcome.detail) == (Reason.connect, "Could not connect: connection refused.")
    assert outcome.status_code is None
    assert outcome.first_byte_ms is None


def test_times_out_where_connections_are_not_answered(look):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            outcome = look(f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_seconds=0.5)
        finally:
            for client in waiting:
                client.close()
    assert outcome.reason is Reason.timeout


# --- what is sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [None, '{"a": "ü"}'])
def test_sends_method_body_and_headers(target, look, method, body):
    outcome = look(target.url("/a?b=c"), method=method, body=body, headers={"X-One": "1", "X-Empty": ""})
    assert outcome.reason is Reason.ok
    [seen] = target.seen
    assert (seen.method, seen.path) == (method, "/a?b=c")
    assert seen.body.decode() == ("" if method == "HEAD" else body or "")
    assert (seen.headers["X-One"], seen.headers["X-Empty"]) == ("1", "")
    assert seen.headers["User-Agent"] == "healthmon"
    assert seen.headers["Content-Type"] is None
    assert seen.headers["Accept-Encoding"] is None
    assert seen.headers["Expect"] is None


def test_lets_headers_be_overridden(target, look):
    look(
        target.url(),
        headers={"user-agent": "mine", "Host": "other.example", "Content-Type": "text/x"},
        body="b",
    )
    [seen] = target.seen
    assert (seen.headers["User-Agent"], seen.headers["Host"]) == ("mine", "other.example")
    assert seen.headers["Content-Type"] == "text/x"


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"X": "1\r\nInjected: 2"}},
        {"headers": {"X\r\nInjected": "2"}},
        {"headers": {"X": "\0"}},
        {"headers": {"X Y": "1"}},
        {"method": "GET / HTTP/1.1\r\nInjected: 1\r\n\r\n"},
        {"method": "CONNECT"},
        {"kind": "carrier-pigeon"},
        {"sealed": "nonsense"},
        {"sealed": seal([new_key()], {"headers": {}}, TARGET_CONTEXT)},
        {"sealed": seal([KEY], {"headers": {}}, "another context")},
        {"sealed": seal([KEY], {"headers": {"X": "1\nInjected: 2"}}, TARGET_CONTEXT)},
        {"expected_status": "nonsense"},
    ],
)
def test_is_inconclusive_about_a_target_that_cannot_be_sent(target, look, fields):
    outcome = look(target.url(), **fields)
    assert outcome.reason is Reason.inconclusive
    assert not any("Injected" in seen.headers for seen in target.seen)


def test_sends_what_was_sealed(target, look):
    sealed = seal([KEY], {"headers": {"authorization": "Bearer s3cret"}, "body": "hidden"}, TARGET_CONTEXT)
    look(
        target.url(),
        method="POST",
        headers={"Authorization": "none", "X-A": "1"},
        body="plain",
        sealed=sealed,
    )
    [seen] = target.seen
    assert seen.headers.get_all("Authorization") == ["Bearer s3cret"]
    assert (seen.headers["X-A"], seen.body) == ("1", b"hidden")


def test_uses_no_proxy_of_the_environment(target):
    # curl reads the environment in C, where changing os.environ under the test would come too late or too wide.
    code = (
        "from tests.monitors.probing.conftest import *\n"
        f"[outcome] = probe_all([make_target({target.url()!r})])\n"
        "assert outcome.reason == 'ok', outcome"
    )
    proxies = dict.fromkeys(("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(Path.cwd())} | proxies, check=True)
    assert len(target.seen) == 1


# --- redirects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (302, "POST", "GET"),
        (302, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ],
)
def test_follows_a_redirect_as_http_says(target, look, status, method, then):
    target.answers["/"] = redirect("/there?x=1", status)
    outcome = look(
        target.url(), method=method, body="b" if method == "POST" else None, headers={"X-Own": "1"}
    )
    assert (outcome.reason, outcome.status_code) == (Reason.ok, 200)
    first, second = target.seen
    assert (second.method, second.path, second.headers["X-Own"]) == (then, "/there?x=1", "1")
    assert second.body == (first.body if then == "POST" else b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_tells_another_origin_nothing(target, look, status):
    sealed = seal([KEY], {"headers": {"Authorization": "Bearer s3cret"}, "body": "hidden"}, TARGET_CONTEXT)
    with TargetServer() as other:
        target.default = redirect(other.url("/"), status)
        outcome = look(
            target.url(), method="POST", headers={"X-Own": "1", "User-Agent": "mine"}, sealed=sealed
        )
        [seen] = other.seen
    assert outcome.reason is Reason.ok
    assert seen.headers["Authorization"] is None
    assert seen.headers["X-Own"] is None
    assert seen.headers["User-Agent"] == "healthmon"
    assert seen.body == b""


def test_does_not_tell_the_first_origin_either_after_a_detour(target, look):
    with TargetServer() as other:
        target.answers["/"] = redirect(other.url("/"))
        other.default = redirect(target.url("/back"))
        look(target.url(), headers={"Authorization": "Bearer s3cret"})
    assert [seen.headers["Authorization"] for seen in target.seen] == ["Bearer s3cret", None]


def test_follows_five_redirects_and_not_six(target, look):
    for hop in range(7):
        target.answers[f"/{hop}"] = redirect(f"/{hop + 1}")
    assert look(target.url("/2")).reason is Reason.ok
    assert look(target.url("/1")).reason is Reason.redirect
    assert target.count("/7") == 1


def test_does_not_follow_when_told_not_to(target, look):
    target.answers["/"] = redirect("/there")
    assert look(target.url(), follow_redirects=False).reason is Reason.status
    assert look(target.url(), follow_redirects=False, expected_status="302").reason is Reason.ok
    assert target.count("/there") == 0


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://10.0.0.1/", Reason.blocked),
        ("http://169.254.169.254/latest/meta-data/", Reason.blocked),
        ("http://[::ffff:10.0.0.1]/", Reason.blocked),
        ("http://0x0a.1/", Reason.blocked),
        ("//10.0.0.1/", Reason.blocked),
        ("file:///etc/passwd", Reason.redirect),
        ("gopher://10.0.0.1/", Reason.redirect),
        ("http://user:s3cret@10.0.0.1/", Reason.redirect),
        ("http://a\\@10.0.0.1/", Reason.redirect),
        ("http://10.0.0.1:99999/", Reason.redirect),
        ("http:10.0.0.1", Reason.redirect),
        ("http://[::1", Reason.redirect),
        ("http:///there", Reason.redirect),
    ],
)
def test_checks_every_redirect_anew(target, look, location, reason):
    target.default = redirect(location)
    outcome = look(target.url())
    assert outcome.reason is reason
    assert "s3cret" not in str(outcome)


def test_carries_the_time_that_is_left_over_redirects(target, look):
    for hop in range(5):
        target.answers[f"/{hop}"] = lambda wire, seen, hop=hop: (
            wire.wait(0.3),
            redirect(f"/{hop + 1}")(wire, seen),
        )
    outcome = look(target.url("/0"), timeout_seconds=1)
    assert outcome.reason is Reason.timeout
    assert target.count("/4") == 0


# --- the guard ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "127.1", "①②⑦.⓪.⓪.①"])
def test_lets_no_packet_leave_for_a_refused_address(target, look, host):
    outcome = look(target.url(host=host), guard=Guard())
    assert outcome.reason is Reason.blocked
    assert "127.0.0.1 is loopback" in outcome.detail
    assert target.connections == 0


def test_dials_the_address_of_a_name_that_may_be_dialled(target, look):
    # localhost is ::1 and 127.0.0.1; only one of them is open.
    outcome = look(target.url(host="localhost"), guard=Guard((ip_network("127.0.0.0/8"),)))
    assert outcome.reason is Reason.ok


def test_is_inconclusive_when_the_prober_has_no_sockets_left(target):
    code = (
        "import resource\n"
        "from tests.monitors.probing.conftest import *\n"
        "import os\n"
        f"targets = [make_target({target.url('/')!r}, monitor_id=n, timeout_seconds=3) for n in range(60)]\n"
        "used = len(os.listdir('/proc/self/fd'))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (used + 25, used + 25))\n"
        "outcomes = probe_all(targets)\n"
        "reasons = {str(outcome.reason) for outcome in outcomes}\n"
        "assert len(outcomes) == 60 and reasons == {'ok', 'inconclusive'}, reasons"
    )
    target.default = reply(delay=1)
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(Path.cwd())}, check=True)


# --- connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "reused"), [("fresh", [False, False, False]), ("reuse", [False, True, True])]
)
def test_keeps_a_connection_only_where_asked_to(target, connection, reused):
    targets = [make_target(target.url(), connection=connection, urgent=False) for _ in range(3)]
    outcomes = probe_all(targets, max_in_flight=1)
    assert [outcome.reused for outcome in outcomes] == reused
    assert target.connections == reused.count(False)
    assert [outcome.connect_ms is None for outcome in outcomes] == reused


class ClosesKept:
    """Answers the first request of a connection, and closes the connection when another one arrives."""

    def __init__(self, reset: bool) -> None:
        self.kept: set[socket.socket] = set()
        self.reset = reset

    def __call__(self, wire: Wire, seen: Seen) -> None:
        if wire.socket not in self.kept:
            self.kept.add(wire.socket)
            reply(delay=0.2 if seen.path == "/slow" else 0)(wire, seen)
        elif self.reset:
            linger_not = struct.pack("ii", 1, 0)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kept", [1, 8])  # curl tries five kept connections and gives up
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_calls_no_failure_what_is_a_kept_connection_that_was_closed(target, reset, kept, method):
    target.default = ClosesKept(reset)
    outcomes: list[Outcome] = []
    loop = Loop(Surroundings(LOCAL), outcomes.append)
    loop.submit([make_target(target.url("/slow"), connection="reuse") for _ in range(kept)])
    while len(outcomes) < kept:
        time.sleep(0.01)
    loop.submit([make_target(target.url("/"), connection="reuse", method=method)])
    assert loop.drain(10)
    assert target.connections == kept + 1
    assert target.count("/") > 1, "no kept connection was tried"
    assert (outcomes[-1].reason, outcomes[-1].reused) == (Reason.ok, False)
    assert outcomes[-1].connect_ms > 0


def test_calls_it_a_failure_when_a_new_connection_is_closed_as_well(target):
    target.answers["/"] = hang_up
    targets = [
        make_target(target.url(path), connection="reuse", urgent=False) for path in ("/first", "/", "/")
    ]
    outcomes = {outcome.reason for outcome in probe_all(targets, max_in_flight=1)}
    assert outcomes == {Reason.ok, Reason.connect}


def test_keeps_no_connection_longer_than_five_minutes(target, monkeypatch):
    assert http.REUSE_SECONDS == 300
    monkeypatch.setattr(http, "REUSE_SECONDS", 1)
    outcomes: list[Outcome] = []
    loop = Loop(Surroundings(LOCAL), outcomes.append)
    for number in range(1, 7):  # never idle for a second
        loop.submit([make_target(target.url(), connection="reuse")])
        while len(outcomes) < number:
            time.sleep(0.01)
        time.sleep(0.4)
    assert loop.drain(5)
    assert [outcome.reused for outcome in outcomes].count(False) == target.connections
    assert 2 <= target.connections <= 3


@pytest.mark.parametrize("tls", [False, True])
def test_has_no_phases_of_a_connection_that_was_kept(target, tls_target, ca_file, tls):
    server = tls_target if tls else target
    targets = [make_target(server.url(), connection="reuse", urgent=False) for _ in range(2)]
    first, second = probe_all(targets, ca_file=ca_file, max_in_flight=1)
    assert (first.reused, second.reused) == (False, True)
    assert None not in (first.dns_ms, first.connect_ms)
    assert (first.tls_ms is not None) == tls
    assert (second.dns_ms, second.connect_ms, second.tls_ms) == (None, None, None)
    assert second.first_byte_ms > 0


def test_leaves_nothing_of_one_target_to_the_next(target):
    # One socket at a time, so that all of them take the same curl handle.
    sealed = seal([KEY], {"headers": {"Authorization": "Bearer s3cret"}, "body": "hidden"}, TARGET_CONTEXT)
    loud = make_target(
        target.url("/loud"), method="POST", headers={"X-Own": "1"}, sealed=sealed, urgent=False
    )
    quiet = make_target(target.url("/quiet"), urgent=False)
    head = make_target(target.url("/head"), method="HEAD", urgent=False)
    outcomes = probe_all([loud, quiet, head, quiet], max_in_flight=1)
    assert [outcome.reason for outcome in outcomes] == [Reason.ok] * 4
    for seen in target.seen:
        if seen.path != "/loud":
            assert (seen.headers["Authorization"], seen.headers["X-Own"], seen.body) == (None, None, b"")
    assert sorted(seen.method for seen in target.seen) == ["GET", "GET", "HEAD", "POST"]


class Options(dict):
    """Notes what is set on it, as a curl handle would."""

    setopt = dict.__setitem__


PLAIN = {"url": "http://127.0.0.1:9/a", "timeout_seconds": 3}


def test_sets_on_a_handle_of_another_plain_target_all_that_is_a_targets_own():
    first, second = (
        http.HttpProbe(make_target(**fields), Surroundings(guard), now=1.0)
        for fields, guard in (
            (PLAIN, LOCAL),
            ({"url": "http://127.0.0.2:9/b", "timeout_seconds": 9}, Guard()),
        )
    )
    assert first.plain
    assert second.plain
    used, new = Options(), Options()
    first.prepare(used)
    second.prepare(new)
    shared = set(used.items()) & set(new.items())
    second.prepare(used, again=True)
    assert used.keys() == new.keys()
    own = {option for option in new if (option, new[option]) not in shared}
    again = Options()
    second.prepare(again, again=True)
    assert (
        own
        == again.keys()
        == {
            pycurl.URL,
            pycurl.TIMEOUT_MS,
            pycurl.OPENSOCKETFUNCTION,
            pycurl.HEADERFUNCTION,
            pycurl.WRITEFUNCTION,
        }
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://127.0.0.1:9/"},
        {"method": "HEAD"},
        {"method": "POST"},
        {"headers": {"X-Own": "1"}},
        {"body": ""},
        {"connection": "reuse"},
        {"sealed": seal([KEY], {"headers": {"Authorization": "Bearer s3cret"}}, TARGET_CONTEXT)},
        {"sealed": seal([KEY], {"body": "hidden"}, TARGET_CONTEXT)},
    ],
)
def test_calls_plain_only_what_sets_nothing_more(fields):
    assert not http.HttpProbe(make_target(**(PLAIN | fields)), Surroundings(LOCAL, (KEY,)), now=1.0).plain


def test_uses_the_handle_of_a_plain_target_for_others_only_once_it_is_reset(target):
    paths = ["/plain", "/redirected", "/plain", "/loud", "/plain", "/head", "/broken", "/plain"]
    fields = {
        "/loud": {"method": "POST", "headers": {"X-Own": "1"}, "body": "b"},
        "/head": {"method": "HEAD"},
    }
    target.answers["/redirected"] = redirect("/plain")
    target.answers["/broken"] = half_body
    now = int(time.time()) - 5  # late, so that they start in this order
    targets = [
        make_target(
            target.url(path),
            monitor_id=n,
            scheduled_at=now,
            urgent=False,
            timeout_seconds=2,
            **fields.get(path, {}),
        )
        for n, path in enumerate(paths)
    ]
    outcomes = sorted(probe_all(targets, max_in_flight=1), key=lambda outcome: outcome.monitor_id)
    assert [outcome.reason for outcome in outcomes] == [
        Reason.body if path == "/broken" else Reason.ok for path in paths
    ]
    for seen in target.seen:
        expected = {"/loud": ("POST", "1", b"b"), "/head": ("HEAD", None, b"")}
        assert (seen.method, seen.headers["X-Own"], seen.body) == expected.get(seen.path, ("GET", None, b""))


# --- TLS ---------------------------------------------------------------------------------------------------


NOT_AFTER = datetime.datetime(2100, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def _tls_server(certificate: trustme.LeafCert) -> TargetServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return TargetServer(tls=context)


@pytest.fixture
def tls_target(authority) -> Iterator[TargetServer]:
    with _tls_server(authority.issue_cert("localhost", "127.0.0.1", not_after=NOT_AFTER)) as server:
        yield server


def test_notes_when_the_certificate_expires_and_times_the_handshake(tls_target, look, ca_file):
    outcome = look(tls_target.url(host="localhost"), ca_file=ca_file)
    assert outcome.reason is Reason.ok
    assert outcome.tls_ms > 0
    assert outcome.certificate_expires_at == NOT_AFTER.timestamp()


def test_looks_at_the_certificate_once_in_ten_minutes(tls_target, ca_file):
    targets = [make_target(tls_target.url(), urgent=False) for _ in range(3)]
    outcomes = probe_all(targets, ca_file=ca_file, max_in_flight=1)
    assert [outcome.certificate_expires_at is not None for outcome in outcomes] == [True, False, False]


def test_refuses_an_unknown_issuer_and_still_notes_the_expiry(tls_target, look):
    outcome = look(tls_target.url())
    assert outcome.reason is Reason.tls
    assert "issuer" in outcome.detail
    assert outcome.certificate_expires_at is not None
    assert tls_target.seen == []


def test_takes_any_certificate_when_told_not_to_verify(tls_target, look):
    outcome = look(tls_target.url().replace("https", "HTTPS"), verify_tls=False)
    assert outcome.reason is Reason.ok
    assert outcome.certificate_expires_at is not None


def test_says_that_a_certificate_has_expired(authority, look, ca_file):
    expired = authority.issue_cert("127.0.0.1", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    with _tls_server(expired) as server:
        outcome = look(server.url(), ca_file=ca_file)
    assert (outcome.reason, outcome.detail) == (Reason.tls, "The certificate has expired.")
    assert outcome.certificate_expires_at == 1577836800


def test_says_that_a_certificate_is_for_another_name(authority, look, ca_file):
    with _tls_server(authority.issue_cert("other.example")) as server:
        outcome = look(server.url(), ca_file=ca_file)
    assert (outcome.reason, outcome.detail) == (Reason.tls, "The certificate is for another name.")


def test_says_that_there_is_no_tls(look):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_in_plain_text():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        plain = threading.Thread(target=answer_in_plain_text)
        plain.start()
        outcome = look(f"https://127.0.0.1:{server.getsockname()[1]}/")
        plain.join()
    assert outcome.reason is Reason.tls


def test_follows_a_redirect_to_https_without_credentials(target, tls_target, look, ca_file):
    target.default = redirect(tls_target.url("/"))
    outcome = look(target.url(), ca_file=ca_file, headers={"Authorization": "Bearer s3cret"})
    assert outcome.reason is Reason.ok
    assert tls_target.seen[0].headers["Authorization"] is None


# --- evidence ----------------------------------------------------------------------------------------------


def test_keeps_evidence_of_a_failure_without_secrets(target, look):
    target.default = echo
    headers = {"Authorization": "Bearer pl4in-s3cret", "X-Public": "seen"}
    sealed = seal([KEY], {"headers": {"X-Hidden": "h1dden"}, "body": '{"pass": "w0rd-123"}'}, TARGET_CONTEXT)
    outcome = look(target.url("/a?key=k3y"), method="POST", headers=headers, sealed=sealed)
    assert outcome.reason is Reason.status
    assert outcome.evidence["status_code"] == 500
    assert "X-Public: seen" in outcome.evidence["body"]
    assert outcome.evidence["headers"]["X-Echo"] == "***"
    for secret in ("pl4in-s3cret", "h1dden", "w0rd-123", "k3y"):
        assert secret not in str(outcome)


def test_keeps_two_thousand_characters_and_nothing_a_database_refuses(target, look):
    target.default = reply(
        500, b"\0\xff" + "ü".encode() * 5000, [("X-Nul", "a"), ("Set-Cookie", "session=1")]
    )
    evidence = look(target.url()).evidence
    assert len(evidence["body"]) == 2048
    assert "\0" not in evidence["body"]
    assert evidence["headers"]["Set-Cookie"] == "***"


def test_speaks_in_short_sentences(target, look):
    target.default = redirect("ftp://" + "x" * 3000)
    for fields in ({}, {"follow_redirects": False}):
        outcome = look(target.url(), **fields)
        assert outcome.reason in FAILING
        assert 0 < len(outcome.detail) <= 300
        assert outcome.detail.endswith(".")
