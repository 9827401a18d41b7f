"""What people and machines ask of subscriptions: what is there, and who would be told."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from accounts.models import Team
from notifications.messages import Message
from notifications.models import Channel, Subscription
from notifications.routing import Interest, Verdict, explain


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whether a channel would be told of a message, by which of its subscriptions, and why."""

    channel: int
    channel_name: str
    channel_kind: str
    subscription: int | None
    told: bool
    why: str


def interests(team_ids: Collection[int]) -> list[Interest]:
    """This will return what the channels of teams subscribe to, of disabled channels too, in one query."""
    return [
        Interest(
            team_id, channel_id, scope, tag, monitor_id, tuple(kinds), min_severity, tuple(days), from_time, until_time,
            time_zone, subscription_id,
        )
        for (
            team_id, channel_id, scope, tag, monitor_id, kinds, min_severity, days, from_time, until_time, time_zone,
            subscription_id,
        ) in Subscription.objects.filter(channel__team__in=team_ids)
        .order_by("id")
        .values_list(
            "channel__team_id", "channel_id", "scope", "tag", "monitor_id", "kinds", "min_severity", "days",
            "from_time", "until_time", "time_zone", "id",
        )
    ]  # fmt: skip


def channels(team_id: int) -> QuerySet[Channel]:
    """This will return a team's channels."""
    return Channel.objects.filter(team=team_id)


def recipients(message: Message, channels: Sequence[Channel]) -> list[Recipient]:
    """This will say of each of a team's channels whether it would be told of a message, and why, in one query."""
    verdicts: dict[int, list[Verdict]] = defaultdict(list)
    for verdict in explain(message, interests([message.team_id])):
        if verdict.names_the_monitor:
            verdicts[verdict.channel_id].append(verdict)
    return [_recipient(channel, verdicts[channel.id]) for channel in channels]


def _recipient(channel: Channel, verdicts: Sequence[Verdict]) -> Recipient:
    telling = next((verdict for verdict in verdicts if verdict.told), None)
    speaking = telling or next(iter(verdicts), None)
    if not channel.enabled:
        why = f"It is disabled: {channel.disabled_reason or 'by hand.'}"
    elif telling:
        why = telling.why
    elif channel.for_owners and not verdicts:
        why = "It hears of failing channels, where no other channel can tell of them."
    else:
        why = " ".join(verdict.why for verdict in verdicts) or "No subscription of it names this monitor."
    return Recipient(
        channel=channel.id,
        channel_name=channel.name,
        channel_kind=channel.kind,
        subscription=speaking.subscription_id if speaking else None,
        told=channel.enabled and telling is not None,
        why=why,
    )


def watched(team_id: int) -> tuple[int, str]:
    """This will return how many monitors a team has that are not paused, and the team's name."""
    monitors: Any = Subscription._meta.get_field("monitor").related_model
    watched = monitors.objects.filter(team_id=team_id, enabled=True).count()
    return watched, Team.objects.values_list("name", flat=True).get(id=team_id)


MOST_REMINDERS_DUE = 20_000  # a bound, so that no answer is endless
# A reminder that waits for its channel is not joined by the next one.
_REMINDERS_DUE = """
    SELECT opening.incident_id, c.id
      FROM notifications_channel c
      JOIN notifications_delivery opening
        ON opening.channel_id = c.id AND opening.kind = 'opened' AND opening.status = 'sent'
      JOIN incidents_incident i ON i.id = opening.incident_id AND i.resolved_at IS NULL AND i.status = 'open'
     WHERE c.enabled AND c.reminder_minutes IS NOT NULL
       AND NOT EXISTS (
           SELECT FROM notifications_delivery told
            WHERE told.incident_id = i.id AND told.channel_id = c.id AND told.kind IN ('opened', 'reminder')
              AND (told.status IN ('pending', 'sending')
                   OR coalesce(told.sent_at, told.created_at) > %s - c.reminder_minutes * interval '1 minute')
       )
     ORDER BY opening.sent_at, opening.id
     LIMIT %s
"""


def reminders_due(now: datetime) -> list[tuple[int, int]]:
    """This will return (incident, channel) pairs of which it is time to say that it is still down, the oldest first.

    That is an incident that nobody has acknowledged, and a channel that was told of its opening and has
    `reminder_minutes`, if it has heard nothing of the kind for so long. At most MOST_REMINDERS_DUE.
    """
    with connection.cursor() as cursor:
        cursor.execute(_REMINDERS_DUE, [now, MOST_REMINDERS_DUE])
        return cursor.fetchall()


def channel_name(channel_id: int) -> str | None:
    """This will return what a channel is called; None if there is none."""
    return Channel.objects.filter(id=channel_id).values_list("name", flat=True).first()
