"""The outbox: deliveries are rows, written with what they tell of, and worked off by lease, send, settle.

At least once: a row leaves `pending` for good only when its send is known to have succeeded or to be pointless. A
process that dies in between leaves a lease that runs out, and the row is taken up again with the same key.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import random

import structlog
from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from kombu.exceptions import OperationalError

from accounts.models import Team
from healthmon.lib import backoff, sealing
from notifications import messages, routing
from notifications.messages import Message
from notifications.models import Channel, Delivery, MessageRecord, Subscription
from notifications.transports import DeliveryFailed, Envelope

log = structlog.get_logger(__name__)

# Seconds after the first, second … failed attempt: from a blip to a long weekend, 3.2 days in all.
RETRY_SECONDS = (5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 86_400)
RETRY_AFTER_MOST_SECONDS = 3600
# Between lease and the start of the send. Longer waits are leased again, and the stale message finds its token gone.
LEASE_SECONDS = 15
# Longer than any transport's own limit, so that a lease never runs out under a send that still may succeed.
SEND_SECONDS = 40


def enqueue(happened: Sequence[Message], now: datetime) -> None:
    """This will write down who is to be told what, in the transaction of what happened, and nudge the notifier.

    A resolve goes to whom the routing names and to whoever was told of the opening.
    """
    if not happened:
        return
    slugs = dict(Team.objects.filter(id__in={m.team_id for m in happened}).values_list("id", "slug"))
    interests = [
        routing.Interest(*row)
        for row in Subscription.objects.filter(channel__team__in=slugs).values_list(
            "channel__team_id", "channel_id", "scope", "tag", "monitor_id"
        )
    ]
    told = _told_of_opening([m.incident_id for m in happened if m.kind == "resolved" and m.incident_id])
    records = MessageRecord.objects.bulk_create(_record(m, slugs[m.team_id], now) for m in happened)
    wanted = [
        (record, channel_id)
        for record, message in zip(records, happened, strict=True)
        for channel_id in sorted(routing.recipients(message, interests) | told[message.incident_id])
    ]
    enabled = dict(Channel.objects.filter(id__in={c for _, c in wanted}).values_list("id", "enabled"))
    # A channel that was deleted since its subscription was read must not cost what happened.
    wanted = [(record, c) for record, c in wanted if c in enabled]
    Delivery.objects.bulk_create(_delivery(record, c, enabled[c], now) for record, c in wanted)
    if wanted:
        transaction.on_commit(nudge)


def send_test(channel: Channel, now: datetime) -> Delivery:
    """This will write down a test message to one channel, whatever it subscribes to."""
    message = Message(kind="test", team_id=channel.team_id, at=now)
    record = _record(message, channel.team.slug, now)
    record.save()
    delivery = _delivery(record, channel.id, True, now)
    delivery.save()
    transaction.on_commit(nudge)
    return delivery


def _record(message: Message, team_slug: str, now: datetime) -> MessageRecord:
    url = incident_url(message.incident_id)
    return MessageRecord(
        team_id=message.team_id,
        incident_id=message.incident_id,
        kind=message.kind,
        subject=messages.subject(message),
        text=messages.text(message, url),
        payload=messages.payload(message, team_slug, url),
        created_at=now,
    )


def _delivery(record: MessageRecord, channel_id: int, enabled: bool, now: datetime) -> Delivery:
    status = Delivery.Status.PENDING if enabled else Delivery.Status.MUTED
    return Delivery(
        message=record,
        channel_id=channel_id,
        status=status,
        next_attempt_at=now if enabled else None,
        created_at=now,
    )


def incident_url(incident_id: int | None) -> str:
    """This will return where a person finds an incident in the console; empty without one."""
    return (
        f"{settings.HEALTHMON_BASE_URL}/admin/incidents/incident/{incident_id}/change/" if incident_id else ""
    )


def _told_of_opening(incident_ids: Sequence[int]) -> dict[int | None, set[int]]:
    told: dict[int | None, set[int]] = defaultdict(set)
    if incident_ids:
        for incident_id, channel_id in (
            Delivery.objects.filter(message__incident_id__in=incident_ids, message__kind="opened")
            .exclude(status=Delivery.Status.MUTED)
            .values_list("message__incident_id", "channel_id")
        ):
            told[incident_id].add(channel_id)
    return told


def nudge() -> None:
    """This will ask the notifier to look now. If the broker is away nothing is lost: beat asks every 2 s."""
    try:
        current_app.send_task("notifications.tasks.relay", queue="alerts", expires=10)
    except (OperationalError, OSError) as problem:
        log.warning("nudge_failed", problem=type(problem).__name__)


# --- lease ------------------------------------------------------------------------------------------------

_LEASE = """
    WITH due AS (
        SELECT id FROM notifications_delivery WHERE status = 'pending' AND next_attempt_at <= %(now)s
         ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), lapsed AS (
        SELECT id FROM notifications_delivery WHERE status = 'sending' AND leased_until < %(now)s
         ORDER BY leased_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications_delivery d SET status = 'sending', leased_until = %(until)s
      FROM (SELECT id FROM due UNION ALL SELECT id FROM lapsed) claimed WHERE d.id = claimed.id
    RETURNING d.id
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send one delivery until a moment, which is also the token that proves it."""

    delivery_id: int
    until: datetime


def lease(now: datetime, limit: int = 100) -> list[Lease]:
    """This will claim what is due, and what was claimed by a process that has not been heard of since."""
    until = now + timedelta(seconds=LEASE_SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(_LEASE, {"now": now, "until": until, "limit": limit})
        return [Lease(delivery_id, until) for (delivery_id,) in cursor.fetchall()]


# --- send -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that a transport needs to send, and the lease to settle with.

    The secrets are still sealed: a seal that does not open costs an attempt, like any other failure to send.
    """

    lease: Lease
    team_id: int
    channel_kind: str
    config: dict
    sealed_secrets: str
    envelope: Envelope


def begin(claimed: Lease, now: datetime) -> Parcel | None:
    """This will make a lease the right to send now, count the attempt, and return what to send.

    None if the lease is another's by now, or if the delivery is dead instead: the channel was disabled meanwhile,
    or the last attempt was begun and never settled (what kills its process must not be tried for ever).
    """
    until = now + timedelta(seconds=SEND_SECONDS)
    leased = Delivery.objects.filter(
        id=claimed.delivery_id, status=Delivery.Status.SENDING, leased_until=claimed.until
    )
    with transaction.atomic():
        delivery = leased.select_related("message", "channel").select_for_update(of=("self",)).first()
        if delivery is None:
            return None
        if not delivery.channel.enabled and delivery.message.kind != "test":
            _end(
                delivery,
                Delivery.Status.DEAD,
                f"channel disabled: {delivery.channel.disabled_reason or 'by hand'}",
            )
            return None
        if delivery.attempts > len(RETRY_SECONDS):
            _end(
                delivery,
                Delivery.Status.DEAD,
                "healthmon stopped in the middle of the last attempt to send it",
            )
            return None
        delivery.attempts += 1
        delivery.leased_until = until
        delivery.save(update_fields=["attempts", "leased_until"])
    message, channel = delivery.message, delivery.channel
    return Parcel(
        Lease(delivery.id, until),
        channel.team_id,
        channel.kind,
        channel.config,
        channel.sealed_secrets,
        Envelope(
            key=delivery.key,
            kind=message.kind,
            subject=message.subject,
            text=message.text,
            payload=message.payload,
            sent_at=now,
        ),
    )


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


# --- settle -----------------------------------------------------------------------------------------------


def settle(parcel: Parcel, failure: DeliveryFailed | None, now: datetime) -> str:
    """This will write down how a send ended, and return the delivery's status.

    A lease that ran out and is another's by now changes nothing: that attempt will settle it.
    """
    leased = Delivery.objects.filter(
        id=parcel.lease.delivery_id, status=Delivery.Status.SENDING, leased_until=parcel.lease.until
    )
    if failure is None:
        settled = leased.update(
            status=Delivery.Status.SENT, sent_at=now, next_attempt_at=None, leased_until=None, last_error=""
        )
        return Delivery.Status.SENT if settled else "superseded"
    with transaction.atomic():
        delivery = leased.select_for_update().first()
        if delivery is None:
            return "superseded"
        wait = retry_in(failure, delivery.attempts, random())
        if wait is None:
            _end(delivery, Delivery.Status.DEAD, str(failure))
            if failure.gone:
                Channel.objects.filter(id=delivery.channel_id).update(
                    enabled=False, disabled_reason=f"{failure}"[:300], updated_at=now
                )
            return delivery.status
        delivery.status = Delivery.Status.PENDING
        delivery.next_attempt_at = now + timedelta(seconds=wait)
        delivery.leased_until = None
        delivery.last_error = str(failure)[:500]
        delivery.save(update_fields=["status", "next_attempt_at", "leased_until", "last_error"])
        return delivery.status


def retry_in(failure: DeliveryFailed, attempts: int, jitter: float) -> float | None:
    """This will return the seconds until the next attempt, or None to give up. `jitter` is in [0, 1)."""
    if failure.permanent:
        return None
    wait = backoff.delay_seconds(attempts, RETRY_SECONDS, jitter)
    if wait is not None and failure.retry_after is not None:
        wait = max(wait, min(failure.retry_after, RETRY_AFTER_MOST_SECONDS))
    return wait


def _end(delivery: Delivery, status: str, error: str) -> None:
    delivery.status = status
    delivery.next_attempt_at = delivery.leased_until = None
    delivery.last_error = error[:500]
    delivery.save(update_fields=["status", "sent_at", "next_attempt_at", "leased_until", "last_error"])


def replay(deliveries: QuerySet[Delivery], now: datetime) -> int:
    """This will put dead deliveries of a queryset back in line, with all their tries, and return how many."""
    count = deliveries.filter(status=Delivery.Status.DEAD).update(
        status=Delivery.Status.PENDING, attempts=0, next_attempt_at=now, sent_at=None
    )
    if count:
        transaction.on_commit(nudge)
    return count
