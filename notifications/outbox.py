"""The outbox: deliveries are rows, written with what they tell of. `delivering` works them off.

Whatever happens to the process, the broker or the place to tell: a row leaves `pending` for good only when its send
is known to have succeeded or to be pointless.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from kombu.exceptions import OperationalError

from accounts.models import Membership, Role, Team
from healthmon.lib import sealing
from notifications import links, messages, routing, selectors
from notifications.messages import Message
from notifications.models import Channel, Delivery, MessageRecord, MessageTemplate
from notifications.transports import TRANSPORTS

log = structlog.get_logger(__name__)

# A channel for people that has just spoken gathers longer: an outage that spreads over half a minute is then three
# messages and not ten.
JUST_SPOKEN_SECONDS = 30
GATHER_LONGER = 5  # times
# What a channel missed is told when it is back, unless it is older than this.
CATCH_UP_DAYS = 7

Status = Delivery.Status


def enqueue(happened: Sequence[Message], now: datetime) -> None:
    """This will write down who is to be told what, in the transaction of what happened, and nudge the notifier.

    A resolve goes to whom the routing names and to whoever was told of the opening.
    """
    if not happened:
        return
    interests = selectors.interests({message.team_id for message in happened})
    told = _told_of_opening([m.incident_id for m in happened if m.kind == "resolved" and m.incident_id])
    enqueue_each(
        [
            (message, routing.recipients(message, interests) | told[message.incident_id])
            for message in happened
        ],
        now,
    )


def enqueue_to(message: Message, channel_ids: Collection[int], now: datetime) -> list[Delivery]:
    """This will write down a message to named channels, whatever they subscribe to, and return the deliveries."""
    return enqueue_each([(message, channel_ids)], now)


def enqueue_each(addressed: Sequence[tuple[Message, Collection[int]]], now: datetime) -> list[Delivery]:
    """This will do the same with many messages, in as many statements."""
    records = MessageRecord.objects.bulk_create(_records([message for message, _ in addressed], now))
    wanted = {channel_id for _, channel_ids in addressed for channel_id in channel_ids}
    # One that was deleted since its subscription was read is not among them, and costs nobody else anything.
    channels = Channel.objects.in_bulk(wanted)
    deliveries = Delivery.objects.bulk_create(
        _delivery(record, channels[channel_id], now)
        for record, (_, channel_ids) in zip(records, addressed, strict=True)
        for channel_id in sorted(channel_ids)
        if channel_id in channels
    )
    if deliveries:
        transaction.on_commit(nudge)
    return deliveries


def _records(happened: Sequence[Message], now: datetime) -> Iterable[MessageRecord]:
    teams = Team.objects.in_bulk({message.team_id for message in happened})
    templates = {
        (template.team_id, template.kind): template
        for template in MessageTemplate.objects.filter(team__in=teams, kind__in={m.kind for m in happened})
    }
    for message in happened:
        team, template = teams[message.team_id], templates.get((message.team_id, message.kind))
        url = links.incident_url(message.incident_id)
        subject, text = messages.worded(
            message,
            team_name=team.name,
            incident_url=url,
            subject_template=template.subject if template else "",
            text_template=template.text if template else "",
        )
        yield MessageRecord(
            team=team,
            incident_id=message.incident_id,
            kind=message.kind,
            severity=message.severity,
            subject=subject,
            text=text,
            payload=messages.payload(message, team.slug, url),
            created_at=now,
        )


def _delivery(record: MessageRecord, channel: Channel, now: datetime) -> Delivery:
    told = channel.enabled or record.kind == "test"
    return Delivery(
        message=record,
        channel=channel,
        incident_id=record.incident_id,
        kind=record.kind,
        status=Status.PENDING if told else Status.MUTED,
        next_attempt_at=now + _gathering(record, channel, now) if told else None,
        created_at=now,
    )


def _gathering(record: MessageRecord, channel: Channel, now: datetime) -> timedelta:
    """How long a message waits for company."""
    if record.kind == "test":
        return timedelta(0)
    spoken = channel.last_success_at
    just_spoken = spoken is not None and now - spoken < timedelta(seconds=JUST_SPOKEN_SECONDS)
    return timedelta(seconds=channel.gather_seconds * (GATHER_LONGER if just_spoken else 1))


def _told_of_opening(incident_ids: Sequence[int]) -> dict[int | None, set[int]]:
    told: dict[int | None, set[int]] = defaultdict(set)
    if incident_ids:
        for incident_id, channel_id in (
            Delivery.objects.filter(incident_id__in=incident_ids, kind="opened")
            .exclude(status=Status.MUTED)
            .values_list("incident_id", "channel_id")
        ):
            told[incident_id].add(channel_id)
    return told


def send_test(channel: Channel, now: datetime) -> Delivery:
    """This will write down a test message to one channel, whatever it subscribes to."""
    (delivery,) = enqueue_to(Message(kind="test", team_id=channel.team_id, at=now), [channel.id], now)
    return delivery


def catch_up(channel: Channel, now: datetime) -> int:
    """This will tell a channel what it has missed: incidents that are open, and the end of those it was told of.

    For a channel that was enabled again or given a subscription. Returns how many deliveries there will be.
    """
    if not channel.enabled:
        return 0
    recent = Delivery.objects.filter(
        channel=channel,
        created_at__gt=now - timedelta(days=CATCH_UP_DAYS),
        status__in=[Status.MUTED, Status.DEAD],
    )
    told = Delivery.objects.filter(
        channel=channel, incident_id=OuterRef("incident_id"), kind="opened", status=Status.SENT
    )
    again = Q(Exists(told), kind="resolved") | Q(kind="opened", incident__resolved_at__isnull=True)
    count = _again(Delivery.objects.filter(pk__in=recent.filter(again).values("pk")), now)
    openings = (
        MessageRecord.objects.filter(team=channel.team_id, kind="opened", incident__resolved_at__isnull=True)
        .exclude(deliveries__channel=channel)
        .select_related("incident__monitor")
    )
    interests = [i for i in selectors.interests({channel.team_id}) if i.channel_id == channel.id]
    unheard = [record for record in openings if routing.recipients(_message_of(record, now), interests)]
    Delivery.objects.bulk_create(_delivery(record, channel, now) for record in unheard)
    if unheard:
        transaction.on_commit(nudge)
    return count + len(unheard)


def _message_of(record: MessageRecord, now: datetime) -> Message:
    """As much of an opening as routing asks for, as things are now."""
    monitor = record.incident.monitor if record.incident else None
    return Message(
        kind=record.kind,
        severity=record.severity,
        team_id=record.team_id,
        at=now,
        incident_id=record.incident_id,
        monitor_id=monitor.id if monitor else None,
        tags=tuple(monitor.tags) if monitor else (),
    )


def replay(deliveries: QuerySet[Delivery], now: datetime) -> int:
    """This will put dead deliveries of a queryset back in line, with all their tries, and return how many."""
    return _again(deliveries.filter(status=Status.DEAD), now)


def _again(deliveries: QuerySet[Delivery], now: datetime) -> int:
    count = deliveries.update(status=Status.PENDING, attempts=0, next_attempt_at=now, sent_at=None)
    if count:
        transaction.on_commit(nudge)
    return count


def owners_channel(team_id: int, now: datetime) -> Channel | None:
    """This will return the last resort: mail to a team's owners; None where no mail can be sent or nobody owns it."""
    owners = list(
        Membership.objects.filter(team=team_id, role=Role.OWNER, user__is_active=True)
        .order_by("user__email")
        .values_list("user__email", flat=True)
    )
    if not settings.EMAIL_CONFIGURED or not owners:
        return None
    channel, _ = Channel.objects.update_or_create(
        team_id=team_id,
        for_owners=True,
        defaults={"config": {"to": owners[:50]}, "updated_at": now},
        create_defaults={
            "name": "The team's owners", "kind": "email", "config": {"to": owners[:50]},
            "destination": TRANSPORTS["email"].destination({}), "created_at": now, "updated_at": now,
        },
    )  # fmt: skip
    return channel


def nudge() -> None:
    """This will ask the notifier to look now. If the broker is away nothing is lost: beat asks every 2 s."""
    try:
        current_app.send_task("notifications.tasks.relay", queue="alerts", expires=10)
    except (OperationalError, OSError) as problem:
        log.warning("nudge_failed", problem=type(problem).__name__)


# --- secrets ----------------------------------------------------------------------------------------------


def secrets_of(channel: Channel) -> dict:
    """This will open a channel's sealed secrets."""
    return open_secrets(channel.team_id, channel.sealed_secrets)


def open_secrets(team_id: int, sealed: str) -> dict:
    """This will open what `seal_secrets` sealed for a team. Raises sealing.SealBroken."""
    return sealing.unseal(settings.HEALTHMON_FIELD_KEYS, sealed, _secret_context(team_id)) if sealed else {}


def seal_secrets(team_id: int, secrets: dict) -> str:
    """This will seal a channel's secrets for its row: another team's row cannot open them."""
    return sealing.seal(settings.HEALTHMON_FIELD_KEYS, secrets, _secret_context(team_id)) if secrets else ""


def _secret_context(team_id: int) -> str:
    return f"channel secrets of team {team_id}"
