"""The code that talks to each kind of place: a file and a line here, nowhere else."""

from notifications.transports.apprise import Apprise
from notifications.transports.base import ConfigInvalid, DeliveryFailed, Envelope, Transport
from notifications.transports.discord import Discord
from notifications.transports.email import Email
from notifications.transports.mattermost import Mattermost
from notifications.transports.ntfy import Ntfy
from notifications.transports.opsgenie import Opsgenie
from notifications.transports.pagerduty import PagerDuty
from notifications.transports.pushover import Pushover
from notifications.transports.slack import Slack
from notifications.transports.teams import Teams
from notifications.transports.telegram import Telegram
from notifications.transports.twilio import Twilio
from notifications.transports.webhook import Webhook

TRANSPORTS: dict[str, Transport] = {
    "webhook": Webhook(),
    "email": Email(),
    "slack": Slack(),
    "discord": Discord(),
    "teams": Teams(),
    "mattermost": Mattermost(),
    "telegram": Telegram(),
    "ntfy": Ntfy(),
    "pagerduty": PagerDuty(),
    "opsgenie": Opsgenie(),
    "pushover": Pushover(),
    "twilio": Twilio(),
    "apprise": Apprise(),
}

CHANNEL_KINDS = tuple(TRANSPORTS)

__all__ = ["CHANNEL_KINDS", "TRANSPORTS", "ConfigInvalid", "DeliveryFailed", "Envelope", "Transport"]
