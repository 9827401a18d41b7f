"""A library's own calls of requests, put on a line of ours for as long as it is at work."""

import threading
from ipaddress import ip_network

import pytest
import requests
import urllib3

from healthmon.lib.addresses import AddressRefused, Guard
from healthmon.lib.guarded_requests import MOST_BYTES, Wire
from tests.support import target
from tests.support.target import TargetServer, redirect, reply

OPEN, CLOSED = Guard((ip_network("127.0.0.0/8"),)), Guard()


@pytest.fixture
def server():
    with TargetServer() as running:
        yield running


def test_notes_how_the_last_request_went(server):
    server.answers = {"/busy": reply(429, headers=[("Retry-After", "9")]), "/gone": target.hang_up}
    with Wire(OPEN, 5) as wire:
        assert requests.get(server.url("/busy"), timeout=1).text == "ok"
        assert (wire.status_code, wire.retry_after_seconds, wire.problem) == (429, 9, "")
        with pytest.raises(requests.ConnectionError) as hung_up:
            requests.get(server.url("/gone?token=hush"), timeout=1)
        assert "hush" not in str(hung_up.value)
        assert (wire.status_code, wire.problem) == (None, "It could not be connected to, or hung up.")
        with requests.Session() as session:
            assert session.get(server.url("/"), stream=True).content == b"ok"
    assert (wire.status_code, wire.problem, wire.refused, wire.expired) == (200, "", "", False)


CALLS = {
    "requests": requests.get,
    "a session": lambda url: requests.Session().get(url),
    "a session with an adapter of its own": lambda url: mounted().get(url),
    "urllib3": lambda url: urllib3.PoolManager(retries=False).request("GET", url),
}


def mounted() -> requests.Session:
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter())
    return session


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_dials_nothing_past_the_guard(server, call):
    with Wire(CLOSED, 5) as wire, pytest.raises(AddressRefused):
        call(server.url("/"))
    assert wire.refused == "127.0.0.1 is loopback (127.0.0.0/8)"
    assert server.connections == 0
    call(server.url("/"))
    assert server.connections == 1, "afterwards it is as it was"


def test_judges_every_hop_of_a_redirect(server):
    server.answers = {"/out": redirect("http://10.0.0.1/")}
    with Wire(OPEN, 5) as wire, pytest.raises(AddressRefused):
        requests.get(server.url("/out"))
    assert wire.refused == "10.0.0.1 is private (10.0.0.0/8)"


def test_is_of_one_thread(server):
    answers = []
    with Wire(CLOSED, 5):
        other = threading.Thread(target=lambda: answers.append(requests.get(server.url("/"))))
        other.start()
        other.join()
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize("answer", [target.hang, target.drip])
def test_ends_all_its_requests_at_one_deadline(server, answer):
    server.answers = {"/slow": answer}
    with Wire(OPEN, 0.5) as wire:
        requests.get(server.url("/"))
        for path in ("/slow", "/"):
            with pytest.raises(requests.ConnectionError):
                requests.get(server.url(path), timeout=300)
            assert wire.problem == "There was no answer within 0.5 s."
    assert wire.expired
    assert [seen.path for seen in server.seen] == ["/", "/slow"]


def test_reads_a_megabyte(server):
    server.default = target.huge_body
    with Wire(OPEN, 20):
        assert len(requests.get(server.url("/")).content) == MOST_BYTES
