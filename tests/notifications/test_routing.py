"""Who is told, and why: tables, and what holds for every moment and every clock."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.messages import KINDS, SEVERITIES, Message
from notifications.routing import (
    ADDRESSED,
    OPT_IN,
    ROUTED,
    Decision,
    Interest,
    decide,
    explain,
    recipients,
    severity_of,
    zone_of,
    zones,
)

OPENED = Message(
    kind="opened", team_id=1, at=datetime(2026, 3, 1, tzinfo=UTC), monitor_id=3, tags=("prod", "shop")
)
NO_TAGS = Message(kind="opened", team_id=1, at=OPENED.at, monitor_id=3)
NO_MONITOR = Message(kind="resolved", team_id=1, at=OPENED.at)  # it was deleted
ALL = Interest(1, 10, "all")

TABLE = [
    # message, what channels subscribe to, whom it reaches
    (OPENED, [], set()),
    (OPENED, [Interest(1, 10, "all")], {10}),
    (OPENED, [Interest(2, 10, "all")], set()),
    (OPENED, [Interest(1, 10, "tag", tag="prod")], {10}),
    (OPENED, [Interest(1, 10, "tag", tag="Prod")], set()),
    (OPENED, [Interest(1, 10, "tag", tag="pro")], set()),
    (OPENED, [Interest(2, 10, "tag", tag="prod")], set()),
    (OPENED, [Interest(1, 10, "monitor", monitor_id=3)], {10}),
    (OPENED, [Interest(1, 10, "monitor", monitor_id=4)], set()),
    (OPENED, [Interest(2, 10, "monitor", monitor_id=3)], set()),
    (OPENED, [Interest(1, 10, "all"), Interest(1, 10, "tag", tag="shop")], {10}),
    (OPENED, [Interest(1, 10, "all"), Interest(1, 11, "monitor", monitor_id=3)], {10, 11}),
    (OPENED, [Interest(1, 10, "tag", tag="eu"), Interest(1, 10, "tag", tag="shop")], {10}),
    (NO_TAGS, [Interest(1, 10, "tag", tag="prod"), Interest(1, 11, "all")], {11}),
    (NO_TAGS, [Interest(1, 10, "tag", tag="")], set()),
    (NO_MONITOR, [Interest(1, 10, "monitor", monitor_id=3), Interest(1, 11, "monitor")], set()),
    (NO_MONITOR, [Interest(1, 10, "all")], {10}),
]


@pytest.mark.parametrize(("message", "interests", "reached"), TABLE)
def test_tells_whom_the_subscriptions_name(message, interests, reached):
    assert recipients(message, interests) == reached


# --- of what, and how bad ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tells_of_everything_but_what_has_to_be_asked_for(kind):
    message = replace(OPENED, kind=kind)
    assert recipients(message, [ALL]) == ({10} if kind in ROUTED and kind not in OPT_IN else set())
    for asked in ROUTED:
        reached = recipients(message, [replace(ALL, kinds=(asked,))])
        assert reached == ({10} if asked == kind else set())


@pytest.mark.parametrize("kind", ADDRESSED)
def test_no_subscription_decides_of_what_is_addressed(kind):
    assert decide(replace(OPENED, kind=kind), replace(ALL, kinds=(kind,))) is Decision.ADDRESSED


@pytest.mark.parametrize(
    ("least", "reached"),
    [
        ("critical", {"critical"}),
        ("warning", {"critical", "warning"}),
        ("info", {"critical", "warning", "info"}),
    ],
)
def test_tells_of_this_bad_or_worse(least, reached):
    interest = replace(ALL, min_severity=least)
    assert {s for s in SEVERITIES if recipients(replace(OPENED, severity=s), [interest])} == reached


@pytest.mark.parametrize(
    ("kind", "severities"),
    [
        ("opened", {"critical": "critical", "warning": "warning", "info": "info"}),
        ("resolved", {"critical": "critical", "warning": "warning", "info": "info"}),
        ("degraded", {"critical": "warning", "warning": "warning", "info": "info"}),
        ("recovered", {"critical": "info", "warning": "info", "info": "info"}),
    ],
)
def test_slow_is_not_as_bad_as_down(kind, severities):
    assert {severity: severity_of(kind, severity) for severity in SEVERITIES} == severities


# --- when -------------------------------------------------------------------------------------------------

OFFICE = replace(ALL, days=(0, 1, 2, 3, 4), from_time=time(9), until_time=time(18), time_zone="Europe/Berlin")
NIGHT = replace(OFFICE, from_time=time(22), until_time=time(6))
FRIDAY_NIGHT = replace(NIGHT, days=(4,))
WEEKEND = replace(ALL, days=(5, 6), time_zone="Europe/Berlin")
FROM_NOON_TO_NOON = replace(ALL, days=(0,), from_time=time(12), until_time=time(12))
TO_MIDNIGHT = replace(ALL, days=(0,), from_time=time(18), until_time=time(0))
FAR_EAST = replace(OFFICE, time_zone="Pacific/Kiritimati")  # 14 hours ahead

HOURS = [
    # interest, moment (UTC), told; Berlin is UTC+1 in January, +2 in July. 2026-01-05 is a Monday.
    (OFFICE, "2026-01-05T07:59:59", False),
    (OFFICE, "2026-01-05T08:00:00", True),
    (OFFICE, "2026-01-05T16:59:59", True),
    (OFFICE, "2026-01-05T17:00:00", False),
    (OFFICE, "2026-01-10T12:00:00", False),  # Saturday
    (OFFICE, "2026-07-06T07:00:00", True),
    (OFFICE, "2026-07-06T16:00:00", False),
    (NIGHT, "2026-01-05T20:59:59", False),
    (NIGHT, "2026-01-05T21:00:00", True),
    (NIGHT, "2026-01-06T04:59:59", True),
    (NIGHT, "2026-01-06T05:00:00", False),
    (NIGHT, "2026-01-05T04:00:00", False),  # Monday before dawn is Sunday's night
    (FRIDAY_NIGHT, "2026-01-10T04:00:00", True),  # Saturday before dawn is Friday's
    (FRIDAY_NIGHT, "2026-01-09T04:00:00", False),
    (FRIDAY_NIGHT, "2026-01-10T22:00:00", False),
    (WEEKEND, "2026-01-09T22:59:59", False),
    (WEEKEND, "2026-01-09T23:00:00", True),
    (WEEKEND, "2026-01-11T22:59:59", True),
    (WEEKEND, "2026-01-11T23:00:00", False),
    (FROM_NOON_TO_NOON, "2026-01-05T11:59:59", False),
    (FROM_NOON_TO_NOON, "2026-01-05T12:00:00", True),
    (FROM_NOON_TO_NOON, "2026-01-06T11:59:59", True),
    (FROM_NOON_TO_NOON, "2026-01-06T12:00:00", False),
    (TO_MIDNIGHT, "2026-01-05T23:59:59", True),
    (TO_MIDNIGHT, "2026-01-06T00:00:00", False),
    (FAR_EAST, "2026-01-04T19:00:00", True),  # Sunday here, Monday 09:00 there
    # The night in which the clock is put forward, from 02:00 to 03:00, and that in which it is put back.
    (replace(NIGHT, days=()), "2026-03-29T03:59:59", True),  # 05:59:59 summer time
    (replace(NIGHT, days=()), "2026-03-29T04:00:00", False),
    (replace(NIGHT, days=()), "2026-10-25T04:59:59", True),  # 05:59:59 winter time
    (replace(NIGHT, days=()), "2026-10-25T05:00:00", False),
    (replace(OFFICE, days=(), from_time=time(2, 30), until_time=time(3)), "2026-10-25T00:30:00", True),
    (replace(OFFICE, days=(), from_time=time(2, 30), until_time=time(3)), "2026-10-25T01:00:00", False),
    (replace(OFFICE, days=(), from_time=time(2, 30), until_time=time(3)), "2026-10-25T01:30:00", True),
]


@pytest.mark.parametrize(("interest", "moment", "told"), HOURS)
def test_tells_in_the_hours_that_were_asked_for(interest, moment, told):
    message = replace(OPENED, at=datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert bool(recipients(message, [interest])) == told


ZONES = sorted(zones())
TIMES = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))
# Around changes of the clock in either hemisphere as well as anywhere.
MOMENTS = st.one_of(
    st.integers(631_152_000, 2_145_830_400),  # 1990 to 2037
    st.integers(1_774_720_800, 1_774_785_600),  # the night to 2026-03-29
    st.integers(1_792_864_800, 1_792_929_600),  # the night to 2026-10-25
    st.integers(1_775_282_400, 1_775_368_800),  # 2026-04-04 and 05, in the south
).map(lambda epoch: datetime.fromtimestamp(epoch, UTC))
INTERESTS = st.builds(
    replace,
    st.just(ALL),
    days=st.lists(st.integers(0, 6), unique=True).map(tuple),
    from_time=TIMES,
    until_time=TIMES,
    time_zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"] + ZONES
    ),
)


def told(interest: Interest, at: datetime) -> bool:
    return decide(replace(OPENED, at=at), interest) is Decision.TOLD


@given(INTERESTS, MOMENTS)
def test_is_told_where_the_clock_is_in_a_span_of_a_day_that_was_asked_for(interest, at):
    """The same once more, by writing down the spans that began on this day and the one before."""
    clock = at.astimezone(zone_of(interest.time_zone)).replace(tzinfo=None)
    overnight = interest.until_time <= interest.from_time
    spans = []
    for day in (clock.date(), clock.date() - timedelta(days=1)):
        if interest.days and day.weekday() not in interest.days:
            continue
        until: date = day + timedelta(days=1) if overnight else day
        spans.append(
            (datetime.combine(day, interest.from_time), datetime.combine(until, interest.until_time))
        )
    assert told(interest, at) == any(since <= clock < until for since, until in spans)


@given(INTERESTS, MOMENTS)
def test_two_spans_that_make_a_day_leave_no_gap_and_overlap_nowhere(interest, at):
    by_day = replace(interest, days=())
    other = replace(by_day, from_time=by_day.until_time, until_time=by_day.from_time)
    if by_day.from_time == by_day.until_time:
        assert told(by_day, at)
    else:
        assert told(by_day, at) != told(other, at)


@given(INTERESTS, MOMENTS)
def test_each_moment_belongs_to_one_day_at_most(interest, at):
    days = [day for day in range(7) if told(replace(interest, days=(day,)), at)]
    assert len(days) == told(replace(interest, days=()), at)


@given(INTERESTS, MOMENTS, st.integers(-12, 14))
def test_it_does_not_matter_in_whose_words_the_moment_is_given(interest, at, hours):
    assert told(interest, at) == told(interest, at.astimezone(timezone(timedelta(hours=hours))))


@given(INTERESTS, MOMENTS)
def test_explains_what_it_decides(interest, at):
    message = replace(OPENED, at=at)
    [verdict] = explain(message, [interest])
    assert verdict.told == bool(recipients(message, [interest]))
    assert verdict.why.endswith("there.")


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "\0", "é"]
)
def test_rather_tells_at_a_wrong_hour_than_not_at_all(name):
    interest = replace(OFFICE, time_zone=name, days=(0,))
    [verdict] = explain(OPENED, [interest])  # a Sunday
    assert verdict.told
    assert "nobody knows what time it is there" in verdict.why


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_outlives_the_ends_of_time(at):
    for zone in ("America/New_York", "Pacific/Kiritimati"):
        decide(replace(OPENED, at=at), replace(OFFICE, time_zone=zone))


def test_no_row_costs_an_alert():
    assert recipients(replace(OPENED, severity="dire"), [replace(ALL, min_severity="critical")]) == {10}
    assert recipients(OPENED, [replace(ALL, min_severity="dire")]) == {10}


# --- why --------------------------------------------------------------------------------------------------

SHOP = Interest(
    1, 10, "tag", tag="shop", kinds=("opened",), min_severity="warning", days=(0, 1, 2, 3, 4),
    from_time=time(9), until_time=time(18), time_zone="Europe/Berlin", subscription_id=7,
)  # fmt: skip
SATURDAY = replace(OPENED, at=datetime(2026, 1, 10, 10, 5, tzinfo=UTC))
DEGRADED = replace(OPENED, kind="degraded", severity="warning")

WHY = [
    # message, interest, decision, why
    (OPENED, ALL, "told", "It hears of all monitors."),
    (OPENED, Interest(1, 10, "monitor", monitor_id=3), "told", "It hears of this monitor."),
    (OPENED, Interest(1, 10, "tag", tag="prod"), "told", "It hears of the tag `prod`."),
    (OPENED, Interest(1, 10, "tag", tag="eu"), "other_monitor",
     "It hears of the tag `eu`, which this monitor does not carry."),
    (OPENED, Interest(1, 10, "monitor", monitor_id=4), "other_monitor", "It hears of another monitor."),
    (OPENED, replace(ALL, team_id=2), "other_team", "It is another team's."),
    (replace(OPENED, kind="test"), ALL, "addressed", "Of `test` no subscription decides."),
    (SATURDAY, SHOP, "other_hours",
     "It hears of the tag `shop`, of `opened`, from warning up, Mon–Fri 09:00–18:00 Europe/Berlin; "
     "it is Saturday 11:05 there."),
    (replace(SATURDAY, at=SATURDAY.at + timedelta(days=2)), SHOP, "told",
     "It hears of the tag `shop`, of `opened`, from warning up, Mon–Fri 09:00–18:00 Europe/Berlin; "
     "it is Monday 11:05 there."),
    (replace(SATURDAY, severity="info"), replace(SHOP, kinds=(), days=()), "too_mild",
     "It hears of the tag `shop`, from warning up, 09:00–18:00 Europe/Berlin; this is info."),
    (DEGRADED, ALL, "other_kind",
     "It hears of all monitors, of everything but `degraded` and `recovered`; this is `degraded`."),
    (DEGRADED, replace(ALL, kinds=("opened", "resolved", "flapping")), "other_kind",
     "It hears of all monitors, of `opened`, `resolved` and `flapping`; this is `degraded`."),
    (DEGRADED, replace(ALL, kinds=("degraded",)), "told", "It hears of all monitors, of `degraded`."),
    (OPENED, replace(ALL, days=(0, 2, 3)), "other_hours",
     "It hears of all monitors, Mon, Wed, Thu UTC; it is Sunday 00:00 there."),
    (OPENED, replace(ALL, from_time=time(22), until_time=time(6, 0, 30)), "told",
     "It hears of all monitors, 22:00–06:00:30 UTC; it is Sunday 00:00 there."),
]  # fmt: skip


@pytest.mark.parametrize(("message", "interest", "decision", "why"), WHY)
def test_says_why(message, interest, decision, why):
    [verdict] = explain(message, [interest])
    assert (verdict.decision, verdict.why) == (decision, why)
    assert (verdict.channel_id, verdict.subscription_id) == (10, interest.subscription_id)
    assert verdict.told == (decision == "told")
