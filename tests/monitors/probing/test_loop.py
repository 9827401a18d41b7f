import threading
import time

import pytest

from monitors.probing.loop import Loop
from monitors.probing.names import Resolver
from monitors.probing.outcome import Reason, pace_ms
from monitors.probing.probe import Surroundings
from tests.monitors.probing.conftest import LOCAL, make_target, probe_all
from tests.support.target import hang, reply

NOWHERE = "http://no-such-host.invalid/"


@pytest.fixture
def outcomes():
    return []


@pytest.fixture
def loop(outcomes):
    loop = Loop(Surroundings(LOCAL), outcomes.append, max_in_flight=10)
    yield loop
    loop.drain(0.1)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.01)


def test_starts_each_target_at_its_place_inside_the_second(target):
    second = int(time.time()) + 1
    targets = [
        make_target(target.url(), monitor_id=n, scheduled_at=second, expires_at=second + 30, urgent=False)
        for n in range(1, 40)
    ]
    time.sleep(second - time.time())
    outcomes = probe_all(targets)
    assert len(outcomes) == 39
    for outcome in outcomes:
        assert outcome.started_at >= second + pace_ms(outcome.monitor_id) / 1000 - 0.002


def test_starts_urgent_targets_before_any_other(target):
    second = int(time.time()) + 1  # so that the paced ones wait
    paced = [
        make_target(target.url("/paced"), monitor_id=n, scheduled_at=second, urgent=False) for n in range(20)
    ]
    outcomes = probe_all([*paced, make_target(target.url("/urgent"), monitor_id=99)])
    assert outcomes[0].monitor_id == 99
    assert outcomes[0].urgent


def test_spreads_a_backlog_instead_of_firing_it_at_once(target):
    late = int(time.time()) - 10
    targets = [make_target(target.url(), monitor_id=n, scheduled_at=late, urgent=False) for n in range(100)]
    started = sorted(outcome.started_at for outcome in probe_all(targets))
    assert started[-1] - started[0] >= 100 * 0.0005 * 0.9


@pytest.mark.parametrize("urgent", [True, False])
def test_reports_as_missed_what_comes_too_late(target, urgent):
    now = int(time.time())
    late = make_target(target.url(), scheduled_at=now - 60, expires_at=now - 30, urgent=urgent)
    [outcome] = probe_all([late])
    assert outcome.reason is Reason.missed
    assert outcome.evidence is None
    assert target.connections == 0


def test_does_not_sit_on_what_is_due_when_its_clock_is_behind(target):
    ahead = int(time.time()) + 3600
    [outcome] = probe_all(
        [make_target(target.url(), scheduled_at=ahead, expires_at=ahead + 30, urgent=False)]
    )
    assert outcome.reason is Reason.ok


def test_lets_nobody_wait_for_a_slow_target(target):
    target.answers["/slow"] = reply(delay=1)
    slow = [make_target(target.url("/slow"), monitor_id=n) for n in range(50)]
    quick = [make_target(target.url(), monitor_id=100 + n) for n in range(50)]
    outcomes = probe_all([*slow, *quick])
    assert [outcome.monitor_id >= 100 for outcome in outcomes] == [True] * 50 + [False] * 50
    assert max(outcome.total_ms for outcome in outcomes if outcome.monitor_id >= 100) < 1000


def test_bounds_what_is_in_flight_and_in_hand(target, loop, outcomes):
    target.default = hang
    targets = [make_target(target.url(), monitor_id=n, urgent=False, timeout_seconds=3) for n in range(100)]
    assert loop.submit(targets[:40], timeout=1)
    wait_for(lambda: len(target.seen) == 10)
    assert not loop.submit(targets[40:41], timeout=0.1), "40 in hand are four times 10 in flight"
    urgent = make_target(target.url("/urgent"))
    target.answers["/urgent"] = reply()
    assert loop.submit([urgent], timeout=0)
    wait_for(lambda: outcomes)
    assert outcomes[0].urgent
    assert target.count("/") == 10


def test_waits_for_room_no_longer_than_targets_live(target, loop, outcomes):
    target.default = hang
    loop.submit([make_target(target.url(), urgent=False, timeout_seconds=3) for _ in range(40)])
    short = make_target(target.url(), monitor_id=2, expires_at=int(time.time()) + 1, urgent=False)
    assert loop.submit([short])
    wait_for(lambda: any(outcome.reason is Reason.missed for outcome in outcomes))


def test_takes_nothing_more_while_it_is_behind():
    nobody = "http://127.0.0.1:9/"
    ago = int(time.time()) - 2
    late = [make_target(nobody, monitor_id=n, scheduled_at=ago, urgent=False) for n in range(6000)]
    loop = Loop(Surroundings(LOCAL), lambda outcome: None, max_in_flight=2000)
    assert loop.submit(late)
    one = [make_target(nobody, urgent=False)]
    wait_for(lambda: not loop.submit(one, timeout=0))  # what was late is begun one by one, for three seconds
    assert loop.submit([make_target(nobody, urgent=True)], timeout=0)
    assert loop.submit(one, timeout=20), "once the last of it is less than a second away"
    assert loop.drain(10)


def test_survives_a_listener_that_fails(target):
    heard = threading.Event()

    def listener(outcome):
        if outcome.monitor_id == 1:
            raise RuntimeError("a bug of somebody else's")
        heard.set()

    loop = Loop(Surroundings(LOCAL), listener)
    loop.submit([make_target(target.url(), monitor_id=1)])
    loop.submit([make_target(target.url(), monitor_id=2)])
    assert heard.wait(5)
    assert loop.drain(5)


def test_blames_itself_when_its_own_resolver_is_in_doubt():
    def broken_dns(host, port, timeout):
        raise TimeoutError

    [outcome] = probe_all([make_target(NOWHERE)], resolver=Resolver(broken_dns))
    assert outcome.reason is Reason.inconclusive
    assert outcome.evidence is None


def test_says_that_a_name_does_not_resolve():
    # RFC 6761: there is no .invalid, and no resolver may say otherwise.
    [outcome] = probe_all([make_target(NOWHERE)])
    assert (outcome.reason, outcome.detail) == (Reason.dns, "The name no-such-host.invalid does not resolve.")


def test_finishes_what_is_in_hand_and_takes_nothing_more(target, outcomes):
    target.default = reply(delay=0.3)
    loop = Loop(Surroundings(LOCAL), outcomes.append)
    loop.submit([make_target(target.url(), monitor_id=n, urgent=n % 2 == 0) for n in range(20)])
    assert loop.drain(10)
    assert len(outcomes) == 20
    assert not loop.submit([make_target(target.url())])
    assert loop.silent_seconds() == float("inf")


def test_reports_nothing_of_what_it_could_not_finish(target, outcomes):
    target.default = hang
    loop = Loop(Surroundings(LOCAL), outcomes.append)
    loop.submit([make_target(target.url(), timeout_seconds=30)])
    wait_for(lambda: target.seen)
    assert not loop.drain(0.1)
    assert outcomes == []


def test_shows_that_it_lives_and_that_it_died(loop, outcomes):
    time.sleep(1.1)
    assert loop.silent_seconds() < 5
    loop._turn = None  # what a bug in the loop would look like
    loop._ring()
    wait_for(lambda: loop.silent_seconds() == float("inf"))
    assert not loop.closing
    assert not loop.submit([make_target(NOWHERE)])
