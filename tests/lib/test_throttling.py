"""Limits as buckets in the broker's Redis: what is let through, for how long not, and by whose clock."""

import socket
from ipaddress import ip_network
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.test import RequestFactory

from healthmon.lib.throttling import PREFIX, UNCHECKED, Limit, Limiter, address, bucket_of, client_of
from tests.support.racing import race


@pytest.fixture
def broker():
    return client_of(settings.HEALTHMON_BROKER_URL)


@pytest.fixture
def limiter(broker):
    return Limiter(broker)


@pytest.fixture
def whose():
    return uuid4().hex


def test_lets_the_quota_through_and_then_says_how_long_to_wait(limiter, whose):
    limit = Limit("test", 3, 3600)
    left = []
    for _ in range(3):
        [standing] = limiter.judge([(limit, whose)])
        assert standing.wait_seconds == 0
        left.append(standing.left)
    assert left == [2, 1, 0]
    [standing] = limiter.judge([(limit, whose)])
    assert standing.left == 0
    assert 1190 < standing.wait_seconds <= 1200  # a third of the window: that is how fast calls come back
    assert standing.whole_after_seconds <= 3600


def test_does_not_charge_what_it_refuses(limiter, whose):
    limit = Limit("test", 1, 3600)
    limiter.judge([(limit, whose)])
    waits = [limiter.judge([(limit, whose)])[0].wait_seconds for _ in range(5)]
    assert max(waits) <= 3600


def test_charges_no_limit_when_one_refuses(limiter, whose):
    wide, narrow = Limit("wide", 10, 3600), Limit("narrow", 1, 3600)
    limiter.judge([(wide, whose), (narrow, whose)])
    for _ in range(3):
        limiter.judge([(wide, whose), (narrow, whose)])
    [standing] = limiter.judge([(wide, whose)])
    assert standing.left == 8


def test_keeps_people_and_limits_apart(limiter, whose):
    limit = Limit("test", 1, 3600)
    limiter.judge([(limit, whose)])
    for other in ((limit, f"{whose}2"), (limit._replace(name="other"), whose)):
        assert limiter.judge([other])[0].wait_seconds == 0


def test_lets_the_call_come_back(limiter, broker, whose):
    limit = Limit("test", 1, 1)
    limiter.judge([(limit, whose)])
    [key] = broker.keys(f"{PREFIX}test:{whose}")
    assert broker.pttl(key) <= 2_000  # nobody has to tidy up
    broker.set(key, float(broker.get(key)) - 1_000)  # a second later
    assert limiter.judge([(limit, whose)])[0].wait_seconds == 0


def test_lets_exactly_the_quota_through_when_all_come_at_once(whose):
    limit = Limit("test", 20, 3600)

    def some():
        each = Limiter(client_of(settings.HEALTHMON_BROKER_URL))
        return sum(each.judge([(limit, whose)])[0].wait_seconds == 0 for _ in range(10))

    assert sum(race(*[some] * 8)) == 20


@pytest.mark.parametrize("silent", [False, True])
def test_lets_everybody_through_while_redis_is_away_and_asks_it_no_more_for_a_moment(silent):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not silent:
            server.close()
        moment = [100.0]
        limiter = Limiter(client_of(f"redis://127.0.0.1:{port}/0"), clock=lambda: moment[0])
        before = UNCHECKED._value.get()
        asked = [(Limit("test", 1, 60), "x")]
        assert limiter.judge(asked) == []
        assert limiter._not_before == 101.0
        assert limiter.judge(asked) == []
        assert UNCHECKED._value.get() == before + 2
        moment[0] = 102.0
        assert limiter.judge(asked) == []
        assert limiter._not_before == 103.0


def test_asks_nobody_where_the_broker_is_no_redis():
    assert client_of("amqp://guest@rabbit//") is None
    assert Limiter(None).judge([(Limit("test", 1, 60), "x")]) == []


@pytest.mark.parametrize("url", ["redis://:p@h:1/2", "rediss://h", "redis+socket:///tmp/a%20b/broker.sock"])
def test_waits_for_nothing_long(url):
    made = client_of(url).connection_pool.connection_kwargs
    assert made["socket_timeout"] <= 0.25
    assert made["socket_connect_timeout"] <= 0.25
    if "socket://" in url:
        assert made["path"] == "/tmp/a b/broker.sock"
    assert isinstance(client_of(url), redis.Redis)


NETS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    # peer          trusted  X-Forwarded-For                    whose
    ("peer",        "nets",  "forwarded",                       "whose"),
    [
        ("192.0.2.1", (),    None,                              "192.0.2.1"),
        ("192.0.2.1", (),    "198.51.100.7",                    "192.0.2.1"),
        ("192.0.2.1", NETS,  "198.51.100.7",                    "192.0.2.1"),
        ("10.0.0.1",  NETS,  None,                              "10.0.0.1"),
        ("10.0.0.1",  NETS,  "198.51.100.7",                    "198.51.100.7"),
        ("10.0.0.1",  NETS,  "6.6.6.6, 198.51.100.7",           "198.51.100.7"),
        ("10.0.0.1",  NETS,  "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        ("10.0.0.1",  NETS,  "6.6.6.6, nonsense, 10.0.0.2",     "10.0.0.2"),
        ("10.0.0.1",  NETS,  "",                                "10.0.0.1"),
        ("fd00::1",   NETS,  "2001:db8::7",                     "2001:db8::7"),
        ("",          NETS,  "198.51.100.7",                    ""),
    ],
)  # fmt: skip
def test_believes_proxies_that_are_trusted_and_nobody_else(settings, peer, nets, forwarded, whose):
    settings.HEALTHMON_TRUSTED_PROXIES = nets
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert address(RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers)) == whose


@pytest.mark.parametrize(
    ("found", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_counts_all_of_an_ipv6_network_as_one(found, bucket):
    assert bucket_of(found) == bucket
