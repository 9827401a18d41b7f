"""Pushover. https://pushover.net/api"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from notifications.transports import chat
from notifications.transports.base import Envelope, Setting, cut, matching
from notifications.transports.http import HttpTransport, Post, host_of

TITLE_CHARS, MESSAGE_CHARS, URL_CHARS = 250, 1024, 512
# 2, emergency, goes on ringing until somebody confirms it there; that is what our reminders are for.
PRIORITIES = {"critical": 1, "warning": 0, "info": -1}

_key = matching(r"[A-Za-z0-9]{30}", "A key of 30 letters and digits is needed.")


class Pushover(HttpTransport):
    """Taken is 200. 4xx is final, but for 429: the application's month is used up. 5xx is retried after 5 s or more."""

    settings = (
        Setting("token", _key, "the application's API token.", secret=True),
        Setting("user", _key, "the user or group key.", secret=True),
        Setting(
            "device",
            matching(r"[A-Za-z0-9_-]{1,25}", "A device's name is needed: up to 25 letters, digits, _ and -."),
            "one device by name; all of the user's if none is given.",
            default=None,
        ),
    )
    rate_per_minute = 30  # they name no number, but ask not to be hurried; more is not read on a phone

    def __init__(self, origin: str = "https://api.pushover.net") -> None:
        self.origin = origin

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(self.origin)

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        fields: dict[str, Any] = {
            "token": config["token"],
            "user": config["user"],
            "title": cut(envelope.subject, TITLE_CHARS),
            "message": cut(envelope.text or envelope.subject, MESSAGE_CHARS),  # an empty one is refused
            "priority": PRIORITIES.get(envelope.severity, 1),
        }
        if "device" in config:
            fields["device"] = config["device"]
        if url := chat.main_link(envelope, longest=URL_CHARS):
            fields |= {"url": url, "url_title": "Incident"}
        return Post(
            f"{self.origin}/1/messages.json",
            urlencode(fields).encode(),
            content_type="application/x-www-form-urlencoded",
        )
