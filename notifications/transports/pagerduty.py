"""PagerDuty, Events API v2. https://developer.pagerduty.com/docs/events-api-v2-overview"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from notifications.transports import chat
from notifications.transports.alarms import ACKNOWLEDGE, CLOSE, OPEN, alarm, monitor_of
from notifications.transports.base import Envelope, Setting, cut, matching, one_of
from notifications.transports.http import HttpTransport, Post, as_json, host_of

SUMMARY_CHARS = 1024
SEVERITIES = ("critical", "error", "warning", "info")
ACTIONS = {OPEN: "trigger", ACKNOWLEDGE: "acknowledge", CLOSE: "resolve"}


class PagerDuty(HttpTransport):
    """Accepted is 202. 400 is final, 429 and 5xx are to be retried; its throttle has no fixed number."""

    settings = (
        Setting(
            "routing_key",
            matching(
                r"[A-Za-z0-9]{32}", "The 32 letters and digits of an Events API v2 integration are needed."
            ),
            "the integration key of an Events API v2 integration.",
            secret=True,
        ),
        Setting("region", one_of("us", "eu"), "us or eu: where the account is.", default="us"),
    )
    for_machines = True
    rate_per_minute = 120

    def __init__(self, origin: str = "https://events{.region}.pagerduty.com") -> None:
        self.origin = origin

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(self._origin(config))

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        told = alarm(envelope)
        event: dict[str, Any] = {
            "routing_key": config["routing_key"],
            "event_action": ACTIONS[told.action],
            "dedup_key": told.key,
        }
        if told.action == OPEN:
            monitor = monitor_of(envelope)
            event |= {
                "payload": {
                    "summary": cut(envelope.subject, SUMMARY_CHARS),
                    "source": urlsplit(monitor.get("url") or "").hostname
                    or monitor.get("name")
                    or "healthmon",
                    "severity": envelope.severity if envelope.severity in SEVERITIES else "critical",
                    "timestamp": envelope.payload.get("timestamp") or envelope.sent_at.isoformat(),
                    "class": envelope.kind,
                    "custom_details": envelope.payload.get("data", {}),
                },
                "links": [{"href": url, "text": label} for label, url in chat.links(envelope)],
                "client": "healthmon",
            }
        return Post(f"{self._origin(config)}/v2/enqueue", as_json(event))

    def _origin(self, config: Mapping[str, Any]) -> str:
        return self.origin.replace("{.region}", ".eu" if config["region"] == "eu" else "")
