"""What the notifier does: relay leases what is due, deliver sends what a lease covers and settles it."""

import json
import traceback
from time import monotonic
from typing import Any

import structlog
from celery import shared_task

from healthmon.lib.clock import now as read_clock
from notifications import delivering, outbox
from notifications.transports import TRANSPORTS, DeliveryFailed
from notifications.transports.base import redacted

log = structlog.get_logger(__name__)

GO_ON_SECONDS = 30  # with one channel; then others that wait for the thread have their turn


@shared_task(name="notifications.tasks.relay")
def relay(**_future) -> None:
    for lease in delivering.claim(read_clock()):
        deliver.apply_async(kwargs={"lease": lease}, expires=delivering.LEASE_SECONDS)


@shared_task(name="notifications.tasks.deliver")
def deliver(*, lease: int, **_future) -> None:
    """Send what a lease covers, and go on with what its channel has, without the broker in between."""
    until = monotonic() + GO_ON_SECONDS
    parcel = delivering.begin(lease, read_clock())
    while parcel is not None:
        failure = send(parcel)
        status, following = delivering.settle(parcel, failure, read_clock(), go_on=monotonic() < until)
        log.info(
            "delivery",
            delivery_ids=[piece.delivery_id for piece in parcel.pieces[:20]],
            deliveries=len(parcel.pieces),
            channel_id=parcel.channel_id,
            channel_kind=parcel.channel_kind,
            webhook_id=parcel.key,
            status=status,
            error=str(failure) if failure else None,
        )
        if following is None:
            outbox.nudge()  # the share of the notifier that is free now may be somebody's
        parcel = following


def send(parcel: delivering.Parcel) -> DeliveryFailed | None:
    """This will try once, and return why it failed if it did, without a secret in it."""
    secrets: dict[str, Any] = {}
    try:
        secrets = outbox.open_secrets(parcel.team_id, parcel.sealed_secrets)
        config = json.loads(parcel.config) | secrets
        TRANSPORTS[parcel.channel_kind].send(delivering.envelope(parcel), config)
    except DeliveryFailed as failure:
        return failure.saying(redacted(str(failure), secrets.values()))
    except Exception as bug:  # noqa: BLE001 - logged, and tried again like any other failure
        where = redacted(traceback.format_exc(), secrets.values())
        log.error("transport_bug", channel_kind=parcel.channel_kind, traceback=where)
        return DeliveryFailed(f"healthmon could not send it ({type(bug).__name__}); its log says why")
    return None
