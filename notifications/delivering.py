"""How deliveries are worked off: claim, begin, send, settle.

    claim     leases to what is due, so that no place holds more of the notifier than its share
    begin     the attempt is written down, then the right to send is given
    (send)    by a transport, outside any transaction
    settle    how it ended; and the next of the same channel is begun in the same transaction

At least once: a process that dies in between leaves a lease that runs out, and the row is taken up again with the
same key.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import F

from healthmon.lib import backoff
from notifications import links, messages, outbox, selectors
from notifications.messages import SEVERITIES, Message
from notifications.models import Channel, Delivery, DeliveryAttempt
from notifications.transports import DeliveryFailed, Envelope

log = structlog.get_logger(__name__)

# Seconds after the first, second … failed attempt: from a blip to a long weekend, 3.2 days in all.
RETRY_SECONDS = (5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 86_400)
RETRY_AFTER_MOST_SECONDS = 3600
# Between claim and begin. What waits longer is claimed again, and the stale message finds its lease gone.
LEASE_SECONDS = 15
# Longer than any transport's own limit, so that a lease never runs out under a send that still may succeed.
SEND_SECONDS = 40

# --- bulkheads: how many sends at once, of a notifier's 32 ---
OF_A_CHANNEL = 4  # for people one: they read in order
OF_A_DESTINATION = 8  # channels of one host, which hang together
OF_A_SUSPECT = 1  # a channel that failed SUSPECT_AFTER times in a row …
OF_ALL_SUSPECTS = 12  # … and all of those together
SUSPECT_AFTER = 2
AT_ONCE = 100  # leases given and not settled yet: enough to keep several notifiers busy
GROUP_MOST = 1000  # deliveries told as one message
BURST_SECONDS = 10  # of its rate that a channel may use at once

EVER = datetime(2000, 1, 1, tzinfo=UTC)  # before anything was due
FAILING_AFTER = 5  # attempts failed in a row, and a team's owners are told
_CLAIM_LOCK = 0x436C61696D  # any number that nothing else in this database locks

# --- claim ------------------------------------------------------------------------------------------------

_LAPSE = """
    WITH lapsed AS (
        UPDATE notifications_delivery
           SET status = 'pending', next_attempt_at = %(now)s, lease = NULL, leased_until = NULL
         WHERE status = 'sending' AND leased_until < %(now)s
        RETURNING id
    )
    UPDATE notifications_deliveryattempt a SET outcome = 'cut_short' FROM lapsed
     WHERE a.delivery_id = lapsed.id AND a.outcome = 'under_way'
"""

# What a channel's bucket holds now; beyond any number without a limit.
_TOKENS = """
    CASE WHEN c.rate_per_minute IS NULL THEN 1e6
         ELSE floor(least(greatest(c.rate_per_minute * %(burst)s / 60.0, 1),
                          CASE WHEN c.tokens_at IS NULL THEN 1e6
                               ELSE c.tokens + greatest(extract(epoch FROM %(now)s - c.tokens_at), 0)
                                               * c.rate_per_minute / 60.0 END)) END
"""
# Of one incident, a channel hears things in the order in which they happened.
_IN_ORDER = """
    NOT EXISTS (SELECT FROM notifications_delivery e
                 WHERE e.incident_id = d.incident_id AND e.channel_id = d.channel_id AND e.id < d.id
                   AND e.status IN ('pending', 'sending'))
"""
_CLAIM = f"""
    WITH sending AS MATERIALIZED (
        SELECT d.channel_id, c.destination, c.failures >= %(suspect)s AS suspect, count(DISTINCT d.lease) AS leases
          FROM notifications_delivery d JOIN notifications_channel c ON c.id = d.channel_id
         WHERE d.status = 'sending' GROUP BY d.channel_id, c.destination, c.failures
    ), room AS (
        SELECT c.id, c.destination, c.gather_seconds > 0 AS gathers, c.failures >= %(suspect)s AS suspect,
               least(CASE WHEN c.failures >= %(suspect)s THEN %(of_a_suspect)s
                          WHEN c.gather_seconds > 0 THEN 1
                          ELSE %(of_a_channel)s END
                     - coalesce((SELECT leases FROM sending WHERE channel_id = c.id), 0),
                     {_TOKENS})::int AS leases
          FROM notifications_channel c CROSS JOIN LATERAL (
               SELECT FROM notifications_delivery d
                WHERE d.channel_id = c.id AND d.status = 'pending' AND d.next_attempt_at <= %(now)s LIMIT 1
          ) something
    ), heads AS (
        SELECT room.id AS channel_id, room.destination, room.gathers, room.suspect, head.id, head.kind,
               head.next_attempt_at,
               row_number() OVER (PARTITION BY room.destination ORDER BY head.next_attempt_at, head.id)
                   AS at_destination,
               row_number() OVER (PARTITION BY room.suspect ORDER BY head.next_attempt_at, head.id) AS among_suspects
          FROM room CROSS JOIN LATERAL (
               SELECT d.id, d.kind, d.next_attempt_at FROM notifications_delivery d
                WHERE d.channel_id = room.id AND d.status = 'pending' AND d.next_attempt_at <= %(now)s AND {_IN_ORDER}
                ORDER BY d.next_attempt_at, d.id LIMIT room.leases
          ) head
         WHERE room.leases > 0
    ), claimed AS MATERIALIZED (
        SELECT heads.*, floor(random() * 9007199254740991)::bigint AS lease
          FROM heads
         WHERE at_destination <= %(of_a_destination)s
                 - coalesce((SELECT sum(leases) FROM sending s WHERE s.destination = heads.destination), 0)
           AND (NOT suspect OR among_suspects <= %(of_all_suspects)s
                 - coalesce((SELECT sum(leases) FROM sending s WHERE s.suspect), 0))
         ORDER BY next_attempt_at, id
         LIMIT greatest(0, %(at_once)s - coalesce((SELECT sum(leases) FROM sending), 0))
    ), spent AS (
        UPDATE notifications_channel c SET tokens = {_TOKENS} - used.leases, tokens_at = %(now)s
          FROM (SELECT channel_id, count(*) AS leases FROM claimed GROUP BY channel_id) used
         WHERE c.id = used.channel_id AND c.rate_per_minute IS NOT NULL
    ), members AS (
        SELECT id, lease FROM claimed
         UNION
        SELECT company.id, claimed.lease
          FROM claimed CROSS JOIN LATERAL (
               SELECT d.id FROM notifications_delivery d
                WHERE d.channel_id = claimed.channel_id AND d.status = 'pending' AND d.kind = claimed.kind
                  AND (d.attempts = 0 OR d.next_attempt_at <= %(now)s) AND {_IN_ORDER}
                ORDER BY d.next_attempt_at, d.id LIMIT %(group_most)s
          ) company
         WHERE claimed.gathers AND claimed.kind <> 'test'
    ), leased AS (
        UPDATE notifications_delivery d SET status = 'sending', lease = members.lease, leased_until = %(until)s
          FROM members WHERE d.id = members.id AND d.status = 'pending'
        RETURNING d.lease
    )
    SELECT DISTINCT lease FROM leased
"""  # noqa: S608 - the interpolated parts are the constants above


def claim(now: datetime) -> list[int]:
    """This will lease what is due and may be sent now, and return the leases.

    Whatever was leased to a process that has not been heard of since is due again. One claim is made at a time, so
    that the shares hold whoever asks.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
        cursor.execute(_LAPSE, {"now": now})
        cursor.execute(
            _CLAIM,
            {
                "now": now,
                "until": now + timedelta(seconds=LEASE_SECONDS),
                "suspect": SUSPECT_AFTER,
                "of_a_suspect": OF_A_SUSPECT,
                "of_a_channel": OF_A_CHANNEL,
                "of_a_destination": OF_A_DESTINATION,
                "of_all_suspects": OF_ALL_SUSPECTS,
                "at_once": AT_ONCE,
                "group_most": GROUP_MOST,
                "burst": BURST_SECONDS,
            },
        )
        return [lease for (lease,) in cursor.fetchall()]


# --- begin ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """One delivery of a parcel: what was written down about it."""

    delivery_id: int
    attempt_id: int
    due_at: datetime
    key: str
    kind: str
    severity: str
    subject: str
    text: str
    payload: str  # JSON
    incident_id: int | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """The right to send one delivery, or several as one message, and what is needed to send and to settle.

    Nothing is read into it yet and the secrets are still sealed: what goes wrong with that costs an attempt, like any
    other failure to send.
    """

    lease: int
    began_at: datetime
    pieces: tuple[Piece, ...]
    team_id: int
    channel_id: int
    channel_kind: str
    config: str  # JSON
    sealed_secrets: str

    @property
    def key(self) -> str:
        return self.pieces[0].key


_BEGIN = """
    begun AS (
        UPDATE notifications_delivery d
           SET status = 'sending', lease = %(own)s, leased_until = %(until)s, attempts = d.attempts + 1
          FROM taken, notifications_channel c
         WHERE d.id = taken.id AND c.id = d.channel_id
           AND (c.enabled OR d.kind = 'test') AND d.attempts <= %(tries)s
        RETURNING d.id, d.next_attempt_at, d.key, d.message_id, d.channel_id
    ), tried AS (
        INSERT INTO notifications_deliveryattempt (delivery_id, started_at, outcome, detail)
        SELECT id, %(now)s, 'under_way', '' FROM begun
        RETURNING id, delivery_id
    )
    SELECT begun.id, tried.id, begun.next_attempt_at, begun.key, m.kind, m.severity, m.subject, m.text,
           m.payload::text, m.incident_id, c.team_id, c.id, c.kind, c.config::text, c.sealed_secrets
      FROM begun
      JOIN tried ON tried.delivery_id = begun.id
      JOIN notifications_messagerecord m ON m.id = begun.message_id
      JOIN notifications_channel c ON c.id = begun.channel_id
     ORDER BY begun.id
"""
_BEGIN_LEASED = f"""
    WITH taken AS (
        SELECT id FROM notifications_delivery WHERE lease = %(lease)s AND status = 'sending' FOR UPDATE
    ), {_BEGIN}
"""  # noqa: S608
_BEGIN_NEXT = f"""
    WITH channel AS (
        SELECT c.id FROM notifications_channel c
         WHERE c.id = %(channel)s AND c.gather_seconds = 0 AND c.failures < %(suspect)s AND {_TOKENS} >= 1
    ), taken AS (
        SELECT d.id FROM notifications_delivery d JOIN channel ON channel.id = d.channel_id
         WHERE d.status = 'pending' AND d.next_attempt_at <= %(now)s AND {_IN_ORDER}
           AND (d.next_attempt_at, d.id) > (%(after)s, %(after_id)s)
         ORDER BY d.next_attempt_at, d.id LIMIT 1 FOR UPDATE OF d SKIP LOCKED
    ), spent AS (
        UPDATE notifications_channel c SET tokens = {_TOKENS} - 1, tokens_at = %(now)s
          FROM taken WHERE c.id = %(channel)s AND c.rate_per_minute IS NOT NULL
    ), {_BEGIN}
"""  # noqa: S608
# What a lease covers and was not begun: that has another lease by now.
_REFUSE = """
    UPDATE notifications_delivery d
       SET status = 'dead', next_attempt_at = NULL, lease = NULL, leased_until = NULL,
           last_error = CASE WHEN c.enabled THEN 'healthmon stopped in the middle of the last attempt to send it'
                             ELSE 'channel disabled: ' || coalesce(nullif(c.disabled_reason, ''), 'by hand') END
      FROM notifications_channel c
     WHERE c.id = d.channel_id AND d.lease = %s AND d.status = 'sending'
"""


def begin(lease: int, now: datetime) -> Parcel | None:
    """This will make a lease the right to send now, write the attempt down, and return what to send.

    None if the lease is another's by now, or if its deliveries are dead instead: the channel was disabled meanwhile,
    or the last attempt was begun and never settled (what kills its process must not be tried for ever).
    """
    with transaction.atomic():
        parcel = _begun(_BEGIN_LEASED, {"lease": lease}, now)
        with connection.cursor() as cursor:
            cursor.execute(_REFUSE, [lease])
    return parcel


def _begin_next(done: Parcel, now: datetime) -> Parcel | None:
    """This will begin what its channel has next.

    Looked for behind what was just done: in a storm, everything before that is a long stretch of the index that leads
    to rows already sent. What was put back there meanwhile is found when there is nothing else.
    """
    channel: dict[str, Any] = {"channel": done.channel_id}
    last = done.pieces[-1]
    return _begun(_BEGIN_NEXT, channel | {"after": last.due_at, "after_id": last.delivery_id}, now) or _begun(
        _BEGIN_NEXT, channel | {"after": EVER, "after_id": 0}, now
    )


def _begun(statement: str, values: dict[str, Any], now: datetime) -> Parcel | None:
    own = random.getrandbits(53)  # a message that comes twice finds its lease gone
    with connection.cursor() as cursor:
        cursor.execute(
            statement,
            values
            | {
                "own": own,
                "now": now,
                "until": now + timedelta(seconds=SEND_SECONDS),
                "tries": len(RETRY_SECONDS),
                "suspect": SUSPECT_AFTER,
                "burst": BURST_SECONDS,
            },
        )
        return _parcel(own, cursor.fetchall(), now)


def _parcel(lease: int, rows: Sequence[tuple], now: datetime) -> Parcel | None:
    if not rows:
        return None
    return Parcel(lease, now, tuple(Piece(*row[:10]) for row in rows), *rows[0][10:])


def envelope(parcel: Parcel) -> Envelope:
    """This will return what a parcel says: one message in its own words, or several as one."""
    pieces, first = parcel.pieces, parcel.pieces[0]
    facts = [messages.Facts(subject=p.subject, text=p.text, payload=json.loads(p.payload)) for p in pieces]
    incident_ids = [piece.incident_id for piece in pieces if piece.incident_id is not None]
    subject, text = first.subject, first.text
    if len(pieces) > 1:
        watched, team_name = selectors.watched(parcel.team_id)
        subject, text = messages.grouped(first.kind, facts, watched, team_name)
    return Envelope(
        key=first.key,
        kind=first.kind,
        severity=min((piece.severity for piece in pieces), key=SEVERITIES.index),
        subject=subject,
        text=text,
        payload=facts[0].payload,
        sent_at=parcel.began_at,
        incident_id=incident_ids[0] if len(pieces) == 1 and incident_ids else None,
        links=links.of(first.kind, incident_ids, facts, parcel.channel_id, parcel.began_at),
    )


# --- settle -----------------------------------------------------------------------------------------------

_SENT = """
    WITH settled AS (
        UPDATE notifications_delivery
           SET status = 'sent', sent_at = %(now)s, next_attempt_at = NULL, lease = NULL, leased_until = NULL,
               last_error = ''
         WHERE lease = %(lease)s AND status = 'sending'
        RETURNING id
    ), tried AS (
        UPDATE notifications_deliveryattempt SET outcome = 'sent', took_ms = %(took_ms)s WHERE id = ANY (%(attempts)s)
    ), well AS (
        UPDATE notifications_channel c
           SET last_success_at = %(now)s, failures = 0, failing_since = NULL, told_failing_at = NULL
          FROM (SELECT id, failures FROM notifications_channel WHERE id = %(channel)s) was
         WHERE c.id = was.id AND EXISTS (SELECT FROM settled)
           AND (c.failures > 0 OR c.last_success_at IS NULL OR c.last_success_at < %(now)s - interval '5 s')
        RETURNING was.failures
    )
    SELECT (SELECT count(*) FROM settled), coalesce((SELECT failures FROM well), 0)
"""
# A place that answers again is told at once what waited for it.
_FORWARD = """
    UPDATE notifications_delivery SET next_attempt_at = %(now)s
     WHERE channel_id = %(channel)s AND status = 'pending' AND attempts > 0 AND next_attempt_at > %(now)s
"""


def settle(
    parcel: Parcel, failure: DeliveryFailed | None, now: datetime, *, go_on: bool = False
) -> tuple[str, Parcel | None]:
    """This will write down how a send ended, and return the status of its deliveries.

    A lease that ran out and is another's by now changes nothing (`superseded`): that attempt will settle them.
    go_on: after a success, begin the channel's next delivery in the same transaction, and return it, too: its share
        passes from the one to the other.
    """
    if failure is not None:
        return _settle_failure(parcel, failure, now), None
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                _SENT,
                {
                    "now": now,
                    "lease": parcel.lease,
                    "took_ms": _took_ms(parcel, now),
                    "attempts": [piece.attempt_id for piece in parcel.pieces],
                    "channel": parcel.channel_id,
                },
            )
            settled, failures_before = cursor.fetchone()
            if failures_before:
                cursor.execute(_FORWARD, {"now": now, "channel": parcel.channel_id})
                transaction.on_commit(outbox.nudge)
        following = _begin_next(parcel, now) if go_on and settled else None
    return (Delivery.Status.SENT if settled else "superseded"), following


_FAILED = """
    UPDATE notifications_delivery d
       SET status = n.status, next_attempt_at = to_timestamp(n.next_attempt_at), lease = NULL, leased_until = NULL,
           last_error = %(error)s
      FROM unnest(%(ids)s::bigint[], %(statuses)s::text[], %(moments)s::float8[]) AS n (id, status, next_attempt_at)
     WHERE d.id = n.id
"""
_STREAK = """
    UPDATE notifications_channel
       SET failures = failures + 1, failing_since = coalesce(failing_since, %(now)s),
           enabled = enabled AND NOT %(gone)s,
           disabled_reason = CASE WHEN %(gone)s THEN %(error)s ELSE disabled_reason END,
           updated_at = CASE WHEN %(gone)s THEN %(now)s ELSE updated_at END
     WHERE id = %(channel)s
    RETURNING name, kind, failures, failing_since, told_failing_at
"""
# A place that asks for time is not asked by the next message either.
_WAIT = """
    UPDATE notifications_delivery SET next_attempt_at = %(until)s
     WHERE channel_id = %(channel)s AND status = 'pending' AND next_attempt_at < %(until)s
"""


def _settle_failure(parcel: Parcel, failure: DeliveryFailed, now: datetime) -> str:
    error = str(failure)[:500]
    with transaction.atomic():
        DeliveryAttempt.objects.filter(id__in=[piece.attempt_id for piece in parcel.pieces]).update(
            outcome=DeliveryAttempt.Outcome.FAILED, took_ms=_took_ms(parcel, now), detail=error
        )
        rows = list(
            Delivery.objects.select_for_update()
            .filter(lease=parcel.lease, status=Delivery.Status.SENDING)
            .order_by("id")
            .values_list("id", "attempts")
        )
        if not rows:
            return "superseded"
        jitter = random.random()  # one for all: what was told as one message is tried again as one
        waits = [retry_in(failure, attempts, jitter) for _, attempts in rows]
        statuses = [
            (Delivery.Status.DEAD if wait is None else Delivery.Status.PENDING).value for wait in waits
        ]
        moments = [None if wait is None else now.timestamp() + wait for wait in waits]
        values: dict[str, Any] = {"now": now, "channel": parcel.channel_id, "error": error}
        with connection.cursor() as cursor:
            cursor.execute(
                _FAILED, values | {"ids": [row[0] for row in rows], "statuses": statuses, "moments": moments}
            )
            cursor.execute(_STREAK, values | {"gone": failure.gone, "error": error[:300]})
            streak = cursor.fetchone()
            if failure.retry_after is not None:
                until = now + timedelta(seconds=min(failure.retry_after, RETRY_AFTER_MOST_SECONDS))
                cursor.execute(_WAIT, values | {"until": until})
        if streak is not None:
            _tell_owners(parcel, failure, now, *streak)
    return statuses[0]


def _took_ms(parcel: Parcel, now: datetime) -> int:
    return max(0, round((now - parcel.began_at).total_seconds() * 1000))


def retry_in(failure: DeliveryFailed, attempts: int, jitter: float) -> float | None:
    """This will return the seconds until the next attempt, or None to give up. `jitter` is in [0, 1)."""
    if failure.permanent:
        return None
    wait = backoff.delay_seconds(attempts, RETRY_SECONDS, jitter)
    if wait is not None and failure.retry_after is not None:
        wait = max(wait, min(failure.retry_after, RETRY_AFTER_MOST_SECONDS))
    return wait


def _tell_owners(
    parcel: Parcel,
    failure: DeliveryFailed,
    now: datetime,
    name: str,
    kind: str,
    failures: int,
    since: datetime,
    told_at: datetime | None,
) -> None:
    """This will say through another channel that one keeps failing, once in a streak."""
    if told_at is not None or not (failures >= FAILING_AFTER or failure.gone):
        return
    Channel.objects.filter(id=parcel.channel_id).update(told_failing_at=now)
    other = (
        Channel.objects.filter(team_id=parcel.team_id, enabled=True, failures=0, for_owners=False)
        .exclude(id=parcel.channel_id)
        .order_by(F("last_success_at").desc(nulls_last=True), "id")
        .first()
    ) or outbox.owners_channel(parcel.team_id, now)
    if other is None or other.id == parcel.channel_id:
        log.error("channel_failing_and_no_other", channel_id=parcel.channel_id, team_id=parcel.team_id)
        return
    consequence = "It is disabled now." if failure.gone else "Its messages are kept and tried again."
    detail = f"{failures} failed in a row since {since:%Y-%m-%d %H:%M:%S} UTC. {failure} {consequence}"
    message = Message(
        kind="channel_failing",
        severity="warning",
        team_id=parcel.team_id,
        at=now,
        channel_name=f"{name} ({kind})",
        detail=detail,
    )
    outbox.enqueue_to(message, {other.id}, now)
