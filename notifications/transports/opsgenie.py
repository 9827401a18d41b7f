"""Opsgenie, Alert API v2. https://docs.opsgenie.com/docs/alert-api

Atlassian ends it on 5 April 2027; from then on it will answer 410 or not at all.
"""

from collections.abc import Mapping
from typing import Any

from notifications.transports import chat
from notifications.transports.alarms import ACKNOWLEDGE, OPEN, alarm
from notifications.transports.base import Envelope, Setting, cut, matching, one_of
from notifications.transports.http import HttpTransport, Post, as_json, host_of

MESSAGE_CHARS, DESCRIPTION_CHARS, NOTE_CHARS = 130, 15_000, 25_000
LINK_CHARS = 1500  # of each of five: all details together may have 8,000
PRIORITIES = {"critical": "P1", "warning": "P3", "info": "P5"}


class Opsgenie(HttpTransport):
    """Accepted is 202, also to acknowledge or close what is not there. 429 is to be retried, every other 4xx is final.

    How many requests a minute it takes depends on the plan and its seats.
    """

    settings = (
        Setting(
            "api_key",
            matching(
                r"[A-Za-z0-9-]{20,64}",
                "The key of an API integration is needed: letters, digits and hyphens.",
            ),
            "the key of an API integration.",
            secret=True,
        ),
        Setting("region", one_of("us", "eu"), "us or eu: where the account is.", default="us"),
    )
    for_machines = True
    rate_per_minute = 60

    def __init__(self, origin: str = "https://api{.region}.opsgenie.com") -> None:
        self.origin = origin

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(self._origin(config))

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        told = alarm(envelope)
        url = f"{self._origin(config)}/v2/alerts"
        if told.action == OPEN:
            body: dict[str, Any] = {
                "message": cut(envelope.subject, MESSAGE_CHARS),
                "alias": told.key,
                "description": cut(envelope.text, DESCRIPTION_CHARS),
                "priority": PRIORITIES.get(envelope.severity, "P1"),
                "source": "healthmon",
                "details": {"kind": envelope.kind} | dict(chat.links(envelope, longest=LINK_CHARS)),
            }
        else:
            url += (
                f"/{told.key}/{'acknowledge' if told.action == ACKNOWLEDGE else 'close'}?identifierType=alias"
            )
            body = {"source": "healthmon", "note": cut(envelope.text, NOTE_CHARS)}
        return Post(url, as_json(body), {"authorization": f"GenieKey {config['api_key']}"})

    def _origin(self, config: Mapping[str, Any]) -> str:
        return self.origin.replace("{.region}", ".eu" if config["region"] == "eu" else "")
