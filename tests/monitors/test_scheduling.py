"""Scheduling: what is due is a function of time; the clock's row says how far it has been handed out."""

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Team
from monitors import scheduling, selectors, services
from monitors.models import INTERVALS, Region, RegionState, Result
from monitors.probing.outcome import Target
from tests.support.watching import NOON, after, monitor

EPOCH = int(NOON.timestamp())


@pytest.fixture
def team(db) -> Team:
    return Team.objects.create(name="Shop", slug="shop")


# --- pure -----------------------------------------------------------------------------------------------


@given(st.integers(1, 2**31 - 1), st.sampled_from(INTERVALS))
def test_an_offset_lies_in_its_interval(monitor_id, interval):
    assert 0 <= selectors.offset_of(monitor_id, interval) < interval


@given(st.integers(1, 10**6), st.sampled_from(INTERVALS))
def test_ids_in_sequence_are_spread_over_the_interval(first, interval):
    n = 4 * min(interval, 300)
    buckets = [0] * 4
    for monitor_id in range(first, first + n):
        buckets[selectors.offset_of(monitor_id, interval) * 4 // interval] += 1
    assert max(buckets) < n / 2


@given(st.integers(0, 10**6), st.integers(0, 700), st.sampled_from(INTERVALS), st.integers(0, 10**6))
def test_each_offset_has_its_newest_slot_in_the_window_once(since, length, interval, some_offset):
    offset = some_offset % interval
    due = scheduling.due_seconds(since, since + length, [interval])
    slots = [
        s
        for i, o, s in zip(due.intervals, due.offsets, due.slots, strict=True)
        if (i, o) == (interval, offset)
    ]
    in_window = [second for second in range(since + 1, since + length + 1) if second % interval == offset]
    assert slots == in_window[-1:]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 50), max_size=8), st.sampled_from([5, 30, 60]))
def test_windows_that_follow_each_other_hand_out_every_slot_once(start, lengths, interval):
    handed = []
    since = start
    for length in lengths:
        length = min(length, interval)  # longer windows skip on purpose
        handed += scheduling.due_seconds(since, since + length, [interval]).slots
        since += length
    assert handed == list(range(start + 1, since + 1))


def test_batches_are_of_one_region_and_bounded():
    def target(n: int) -> Target:
        return Target(
            monitor_id=n, region="eu" if n % 3 else "us", scheduled_at=1, expires_at=2, url="http://x/"
        )

    targets = [target(n) for n in range(301)]
    batches = list(scheduling.batches(targets, size=100))
    assert sorted(t.monitor_id for batch in batches for t in batch) == list(range(301))
    assert all(len({t.region for t in batch}) == 1 and len(batch) <= 100 for batch in batches)
    assert len(batches) == 4


# --- the database ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", INTERVALS)
def test_the_column_and_the_formula_agree_on_the_offset(team, interval):
    made = monitor(team, interval_seconds=interval, timeout_seconds=5)
    assert made.offset_seconds == selectors.offset_of(made.id, interval)


def test_a_monitor_is_due_in_its_second_and_in_no_other(team):
    shop = monitor(team)
    slot = EPOCH - EPOCH % 30 + shop.offset_seconds
    assert [t.scheduled_at for t in scheduling.due(slot - 1, slot)] == [slot]
    assert list(scheduling.due(slot, slot + 29)) == []
    assert [t.scheduled_at for t in scheduling.due(slot - 1, slot + 100)] == [slot + 90], "the newest of four"


def test_a_target_carries_what_a_probe_needs_and_expires_with_the_next_slot(team):
    shop = monitor(
        team,
        url="https://example.com/health",
        method="POST",
        headers={"Accept": "text/plain"},
        timeout_seconds=7.5,
        expected_status="200,204",
        follow_redirects=False,
        degraded_after_ms=800,
        connection="reuse",
    )
    slot = EPOCH - EPOCH % 30 + shop.offset_seconds
    [target] = scheduling.due(slot - 1, slot)
    assert target == Target(
        monitor_id=shop.id, region="default", scheduled_at=slot, expires_at=slot + 30, kind="http",
        url="https://example.com/health", method="POST", headers={"Accept": "text/plain"}, timeout_seconds=7.5,
        expected_status="200,204", follow_redirects=False, degraded_after_ms=800, connection="reuse",
    )  # fmt: skip


def test_secrets_travel_sealed(team, settings):
    from healthmon.lib import sealing
    from monitors import headers
    from monitors.probing.outcome import TARGET_CONTEXT

    shop = monitor(
        team, sealed_headers=headers.seal(team.id, {"Authorization": "Bearer canary"}), body="canary too"
    )
    slot = EPOCH - EPOCH % 30 + shop.offset_seconds
    [target] = scheduling.due(slot - 1, slot)
    assert "canary" not in repr(target)
    assert sealing.unseal(settings.HEALTHMON_PROBE_KEYS, target.sealed, TARGET_CONTEXT) == {
        "headers": {"Authorization": "Bearer canary"},
        "body": "canary too",
    }


def test_what_is_paused_or_in_a_region_that_is_off_is_not_due(team):
    paused, elsewhere = monitor(team), monitor(team)
    services.pause([paused], None, NOON)
    off = Region.objects.create(slug="off", name="Off", enabled=False)
    RegionState.objects.filter(monitor=elsewhere).delete()
    RegionState.objects.create(monitor=elsewhere, region=off)
    assert list(scheduling.due(EPOCH, EPOCH + 30)) == []


class TestRechecks:
    def test_a_new_monitor_is_looked_at_at_once(self, team):
        shop = monitor(team)
        [target] = scheduling.rechecks(EPOCH)
        assert (target.monitor_id, target.urgent, target.scheduled_at) == (shop.id, True, EPOCH)

    def test_one_is_claimed_once_and_comes_back_if_no_answer_does(self, team):
        monitor(team, timeout_seconds=5)
        assert len(scheduling.rechecks(EPOCH)) == 1
        assert scheduling.rechecks(EPOCH + 14) == []
        [again] = scheduling.rechecks(EPOCH + 15)
        assert again.scheduled_at == EPOCH + 15


class TestLost:
    """Slots that were handed out and never came back."""

    @pytest.fixture
    def shop(self, team):
        return monitor(team, interval_seconds=300, timeout_seconds=10, now=after(-86_400))

    @pytest.fixture
    def slot(self, shop):
        return EPOCH - EPOCH % 300 + shop.offset_seconds

    def test_one_is_found_when_it_had_its_time(self, shop, slot):
        assert scheduling.lost(slot + 20) == []
        [target] = scheduling.lost(slot + 21)
        assert (target.scheduled_at, target.expires_at) == (slot, slot + 300)

    def test_one_that_came_back_is_not(self, shop, slot):
        at = NOON.fromtimestamp(slot, NOON.tzinfo)
        Result.objects.create(
            monitor=shop, region=Region.objects.get(), scheduled_at=at, started_at=at, reason="ok", detail=""
        )
        assert scheduling.lost(slot + 100) == []

    def test_what_was_changed_since_is_left_to_its_own_check(self, shop, slot):
        services.update(shop, {"name": "Other"}, NOON.fromtimestamp(slot + 5, NOON.tzinfo))
        assert scheduling.lost(slot + 100) == []


class TestWindow:
    @pytest.fixture(autouse=True)
    def _at_a_known_time(self, db):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE monitors_scheduleclock SET dispatched_until = now() - interval '10 s'")

    def test_the_clock_moves_on_when_the_work_is_done(self):
        with scheduling.window() as first:
            assert 10 <= first.until - first.since <= 13
            first.shed(3)
        with scheduling.window() as second:
            assert second.since == first.until
        with connection.cursor() as cursor:
            cursor.execute("SELECT shed FROM monitors_scheduleclock")
            assert cursor.fetchone() == (3,)

    def test_it_stays_where_it_is_when_the_publishing_fails(self):
        with pytest.raises(ConnectionError), scheduling.window() as first:
            raise ConnectionError("the broker went away")
        with scheduling.window() as again:
            assert again.since == first.since


def test_a_sweep_knows_how_far_the_dispatching_has_come(db):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE monitors_scheduleclock SET dispatched_until = to_timestamp(%s)", [EPOCH])
    with scheduling.sweeping() as dispatched_until:
        assert dispatched_until == EPOCH


@pytest.mark.django_db(transaction=True)
def test_of_two_ticks_at_once_the_second_finds_the_clock_taken(django_db_blocker):
    import threading

    seen = []

    def second() -> None:
        with django_db_blocker.unblock():
            with scheduling.window() as window:
                seen.append(window)
            connection.close()

    with transaction.atomic(), scheduling.window() as first:
        assert first is not None
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.django_db(transaction=True)
def test_a_sweep_stands_in_no_ticks_way_and_two_do_not_sweep_at_once(django_db_blocker):
    import threading

    seen = []

    def others() -> None:
        with django_db_blocker.unblock():
            with scheduling.window() as window, scheduling.sweeping() as again:
                seen.extend([window is not None, again])
            connection.close()

    with scheduling.sweeping() as dispatched_until:
        assert dispatched_until is not None
        thread = threading.Thread(target=others)
        thread.start()
        thread.join()
    assert seen == [True, None]
