"""Standard Webhooks 1.0.0: signed JSON to a URL. https://www.standardwebhooks.com"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from notifications.transports.base import Envelope, Setting
from notifications.transports.http import HttpTransport, Post, a_url, as_json, host_of

SECRET_BYTES = (24, 64)


def new_secret() -> str:
    """This will return a signing secret of 32 random bytes, `whsec_…`."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _a_secret(given: Any) -> str:
    if not isinstance(given, str) or not _key(given):
        raise ValueError("whsec_ followed by 24 to 64 bytes in base64 is needed, or none at all.")
    return given


class Webhook(HttpTransport):
    settings = (
        Setting("url", a_url, "the URL to send to."),
        Setting(
            "secret", _a_secret, "whsec_…; one is made if none is given.", secret=True, default=new_secret
        ),
    )
    for_machines = True

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["url"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        body = as_json(envelope.payload)
        timestamp = str(int(envelope.sent_at.timestamp()))
        return Post(
            config["url"],
            body,
            {
                "webhook-id": envelope.key,
                "webhook-timestamp": timestamp,
                "webhook-signature": sign(config["secret"], envelope.key, timestamp, body),
            },
        )


def sign(secret: str, key: str, timestamp: str, body: bytes) -> str:
    """This will return the `webhook-signature` header: HMAC-SHA256 over `id.timestamp.body`."""
    digest = hmac.new(_key(secret), f"{key}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """The bytes behind `whsec_…`; empty if there are not 24 to 64 of them."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return b""
    least, most = SECRET_BYTES
    return key if secret.startswith("whsec_") and least <= len(key) <= most else b""
