"""What the notifier does: relay leases what is due, deliver sends one and settles it."""

from datetime import datetime

import structlog
from celery import shared_task

from healthmon.lib.clock import now as read_clock
from notifications import outbox
from notifications.transports import TRANSPORTS, DeliveryFailed

log = structlog.get_logger(__name__)

LEASES_AT_ONCE = 100


@shared_task(name="notifications.tasks.relay")
def relay(**_future) -> None:
    leases = outbox.lease(read_clock(), LEASES_AT_ONCE)
    for lease in leases:
        deliver.apply_async(
            kwargs={"delivery_id": lease.delivery_id, "leased_until": lease.until.isoformat()},
            expires=outbox.LEASE_SECONDS,
        )
    if len(leases) >= LEASES_AT_ONCE:
        outbox.nudge()  # there may be more


@shared_task(name="notifications.tasks.deliver")
def deliver(*, delivery_id: int, leased_until: str, **_future) -> None:
    parcel = outbox.begin(outbox.Lease(delivery_id, datetime.fromisoformat(leased_until)), read_clock())
    if parcel is None:
        return
    failure = send(parcel)
    status = outbox.settle(parcel, failure, read_clock())
    log.info(
        "delivery",
        delivery_id=delivery_id,
        channel_kind=parcel.channel_kind,
        webhook_id=parcel.envelope.key,
        status=status,
        error=str(failure) if failure else None,
    )


def send(parcel: outbox.Parcel) -> DeliveryFailed | None:
    """This will try once, and return why it failed if it did."""
    try:
        config = parcel.config | outbox.open_secrets(parcel.team_id, parcel.sealed_secrets)
        TRANSPORTS[parcel.channel_kind].send(parcel.envelope, config)
    except DeliveryFailed as failure:
        return failure
    except Exception as bug:
        log.exception("transport_bug", channel_kind=parcel.channel_kind)
        return DeliveryFailed(f"healthmon could not send it ({type(bug).__name__}); its log says why")
    return None
