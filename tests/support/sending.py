"""Envelopes to send, and what became of a send in one word."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from notifications.transports import ConfigInvalid, DeliveryFailed, Envelope, Transport

SENT_AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LINK = "https://health.example.com/admin/incidents/incident/7/change/"
LINKS = {"Incident": LINK, "Runbook": "https://wiki.example.com/shop"}
MONITOR = {"id": 3, "name": "Shop", "url": "https://shop.example.com/health"}


def envelope(**fields: Any) -> Envelope:
    """The opening of incident 7, or what the fields make of it."""
    kind = fields.get("kind", "opened")
    given = {
        "key": "msg_0123456789abcdef",
        "kind": kind,
        "subject": "DOWN: Shop (status) ☠",
        "text": 'Shop is down since 12:00.\nIt answered 500 & said "no".',
        "payload": {
            "type": f"incident.{kind}",
            "timestamp": "2026-11-23T11:59:58Z",
            "data": {"incident": {"id": 7}, "monitor": MONITOR, "message": "Café is down ☠"},
        },
        "sent_at": SENT_AT,
        "incident_id": 7,
        "links": LINKS,
    }
    return Envelope(**(given | fields))


def became(transport: Transport, config: Mapping[str, Any], **fields: Any) -> tuple[str, str]:
    """Send, and return `sent`, `retry`, `permanent`, `gone` or `throttled(seconds)`, and the words if it failed."""
    try:
        transport.send(envelope(**fields), config)
    except DeliveryFailed as failure:
        if failure.gone:
            return "gone", str(failure)
        if failure.permanent:
            return "permanent", str(failure)
        if failure.retry_after is not None:
            return f"throttled({failure.retry_after:g})", str(failure)
        return "retry", str(failure)
    return "sent", ""


def complaint(transport: Transport, config: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a configuration, by field; empty if nothing is."""
    try:
        transport.validate(config)
    except ConfigInvalid as invalid:
        return invalid.errors
    return {}
