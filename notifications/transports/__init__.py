"""The code that talks to each kind of place: a file and a line here, nowhere else."""

from notifications.transports.base import ConfigInvalid, DeliveryFailed, Envelope, Transport
from notifications.transports.email import Email
from notifications.transports.webhook import Webhook

TRANSPORTS: dict[str, Transport] = {
    "webhook": Webhook(),
    "email": Email(),
}

CHANNEL_KINDS = tuple(TRANSPORTS)

__all__ = ["CHANNEL_KINDS", "TRANSPORTS", "ConfigInvalid", "DeliveryFailed", "Envelope", "Transport"]
