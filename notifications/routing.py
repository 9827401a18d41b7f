"""Who is told? A pure decision over a message and what channels subscribe to, and the sentence that says why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from notifications.messages import KINDS, SEVERITIES, Message

# Told to whom they are for, whatever anybody subscribes to: a test to its channel, a failing channel to the owners.
ADDRESSED = ("channel_failing", "test")
ROUTED = tuple(kind for kind in KINDS if kind not in ADDRESSED)
# Told only to who asks for them by name: a slow answer wakes nobody.
OPT_IN = ("degraded", "recovered")

_MILDNESS = {severity: rank for rank, severity in enumerate(SEVERITIES)}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WHOLE_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Interest:
    """A subscription as a value: `scope` is `all`, `tag` or `monitor`.

    kinds: of what, empty for everything but OPT_IN. min_severity: this bad or worse. days: 0 is Monday, empty for
    every day. from_time, until_time: both or none, as a clock in `time_zone` shows them; from_time belongs to the
    span, until_time does not. Where `until_time` is not later, it is that of the next day, and the span is one of the
    day on which it began.
    """

    team_id: int
    channel_id: int
    scope: str
    tag: str = ""
    monitor_id: int | None = None
    kinds: tuple[str, ...] = ()
    min_severity: str = SEVERITIES[-1]
    days: tuple[int, ...] = ()
    from_time: time | None = None
    until_time: time | None = None
    time_zone: str = "UTC"
    subscription_id: int | None = None


class Decision(StrEnum):
    """Whether an interest is in a message; if not, the first thing that speaks against it."""

    TOLD = "told"
    ADDRESSED = "addressed"
    OTHER_TEAM = "other_team"
    OTHER_MONITOR = "other_monitor"
    OTHER_KIND = "other_kind"
    TOO_MILD = "too_mild"
    OTHER_HOURS = "other_hours"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a subscription has to say about a message. `why` is one sentence."""

    channel_id: int
    subscription_id: int | None
    decision: Decision
    why: str

    @property
    def told(self) -> bool:
        return self.decision is Decision.TOLD

    @property
    def names_the_monitor(self) -> bool:
        return self.decision not in (Decision.OTHER_TEAM, Decision.OTHER_MONITOR)


def recipients(message: Message, interests: Iterable[Interest]) -> set[int]:
    """This will return the ids of the channels that are to hear of a message."""
    return {interest.channel_id for interest in interests if decide(message, interest) is Decision.TOLD}


def explain(message: Message, interests: Iterable[Interest]) -> list[Verdict]:
    """This will say of each interest whether it is in a message, and why: what `recipients` decides, in words."""
    return [
        Verdict(interest.channel_id, interest.subscription_id, decision, _why(decision, message, interest))
        for interest in interests
        for decision in [decide(message, interest)]
    ]


def decide(message: Message, interest: Interest) -> Decision:
    """This will decide whether an interest is in a message. Neither can make it fail: no alert hangs on a bad row."""
    if message.kind in ADDRESSED:
        return Decision.ADDRESSED
    if interest.team_id != message.team_id:
        return Decision.OTHER_TEAM
    if not _names(interest, message):
        return Decision.OTHER_MONITOR
    if message.kind not in interest.kinds if interest.kinds else message.kind in OPT_IN:
        return Decision.OTHER_KIND
    if _MILDNESS.get(message.severity, 0) > _MILDNESS.get(interest.min_severity, len(SEVERITIES)):
        return Decision.TOO_MILD
    if not _in_hours(interest, message.at):
        return Decision.OTHER_HOURS
    return Decision.TOLD


def severity_of(kind: str, severity: str) -> str:
    """This will return how bad a kind of message about a monitor of this severity is.

    Slow is never as bad as down, and that it is slow no more is good news.
    """
    if kind == "recovered":
        return "info"
    return "warning" if kind == "degraded" and severity == "critical" else severity


def _names(interest: Interest, message: Message) -> bool:
    if interest.scope == "tag":
        return interest.tag in message.tags
    if interest.scope == "monitor":
        return message.monitor_id is not None and interest.monitor_id == message.monitor_id
    return True


# --- hours ------------------------------------------------------------------------------------------------


def _in_hours(interest: Interest, at: datetime) -> bool:
    """Whether the clock of the interest's zone shows a time in its hours.

    The clock decides, not the seconds since a span began: an hour that a clock shows twice is in it twice, and one
    that is skipped is in no span.
    """
    if not interest.days and interest.from_time is None:
        return True
    local = _there(interest, at)
    if local is None:
        return True
    from_time, until_time = interest.from_time or time.min, interest.until_time or time.min
    began_today, began_yesterday = local.time() >= from_time, local.time() < until_time
    if until_time > from_time:  # it begins and ends on one day
        began_today, began_yesterday = began_today and began_yesterday, False
    return (began_today and _on(interest, local.weekday())) or (
        began_yesterday and _on(interest, (local.weekday() - 1) % 7)
    )


def _on(interest: Interest, day: int) -> bool:
    return not interest.days or day in interest.days


def _there(interest: Interest, at: datetime) -> datetime | None:
    """What the clock shows there, in words of no zone; None where nobody knows."""
    zone = zone_of(interest.time_zone)
    try:
        return at.astimezone(zone).replace(tzinfo=None) if zone else None
    except OverflowError:  # the first and the last day of all time
        return None


@cache
def zones() -> frozenset[str]:
    """This will return the names of the time zones there are; not those whose meaning is this machine's."""
    return frozenset(available_timezones() - {"localtime", "Factory"})


@cache
def zone_of(name: str) -> ZoneInfo | None:
    """This will return a time zone, None if there is none of that name.

    None is no error: where an update took a zone away, an alert at a wrong hour is better than none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # none; no name of one; a folder of some
        return None


# --- words ------------------------------------------------------------------------------------------------


def _why(decision: Decision, message: Message, interest: Interest) -> str:
    if decision is Decision.ADDRESSED:
        return f"Of `{message.kind}` no subscription decides."
    if decision is Decision.OTHER_TEAM:
        return "It is another team's."
    scope = {"tag": f"the tag `{interest.tag}`", "monitor": "this monitor"}.get(
        interest.scope, "all monitors"
    )
    if decision is Decision.OTHER_MONITOR:
        return (
            f"It hears of {scope}, which this monitor does not carry."
            if interest.scope == "tag"
            else "It hears of another monitor."
        )
    parts = [f"It hears of {scope}"]
    if interest.kinds:
        parts.append(f"of {_listed([f'`{kind}`' for kind in interest.kinds])}")
    elif decision is Decision.OTHER_KIND:
        parts.append(f"of everything but {_listed([f'`{kind}`' for kind in OPT_IN])}")
    if interest.min_severity != SEVERITIES[-1]:
        parts.append(f"from {interest.min_severity} up")
    if hours := _hours(interest):
        parts.append(hours)
    return ", ".join(parts) + _but(decision, message, interest)


def _but(decision: Decision, message: Message, interest: Interest) -> str:
    if decision is Decision.OTHER_KIND:
        return f"; this is `{message.kind}`."
    if decision is Decision.TOO_MILD:
        return f"; this is {message.severity}."
    if not interest.days and interest.from_time is None:
        return "."
    local = _there(interest, message.at)
    if local is None:
        return "; nobody knows what time it is there, so it is told at any hour."
    return f"; it is {_WHOLE_DAYS[local.weekday()]} {local:%H:%M} there."


def _hours(interest: Interest) -> str:
    parts = [_days(interest.days)] if interest.days else []
    if interest.from_time is not None and interest.until_time is not None:
        parts.append(f"{_clock(interest.from_time)}–{_clock(interest.until_time)}")
    return " ".join([*parts, interest.time_zone]) if parts else ""


def _days(days: Sequence[int]) -> str:
    """`Mon–Fri`, `Mon, Wed`: three and more in a row are a stretch."""
    runs: list[list[int]] = []
    for day in sorted({day for day in days if 0 <= day <= 6}):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(
        f"{_DAYS[run[0]]}–{_DAYS[run[-1]]}" if len(run) > 2 else ", ".join(_DAYS[day] for day in run)
        for run in runs
    )


def _clock(moment: time) -> str:
    return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
