"""Standard Webhooks 1.0.0: signed JSON to a URL. https://www.standardwebhooks.com"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from healthmon.lib import outgoing
from healthmon.lib.addresses import Guard, url_problem
from notifications.transports.base import ConfigInvalid, DeliveryFailed, Envelope, refuse_unknown

TIMEOUT_SECONDS = 15  # name, connection, answer: all of it
SECRET_BYTES = (24, 64)


class Webhook:
    secret_fields = frozenset({"secret"})

    def validate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unknown(config, frozenset({"url", "secret"}))
        url = config.get("url")
        if not isinstance(url, str) or not url:
            raise ConfigInvalid({"url": "The URL to send to is needed."})
        if problem := url_problem(url):
            raise ConfigInvalid({"url": f"This URL {problem}."})
        if refusal := Guard(settings.HEALTHMON_ALLOWED_NETS).url_refusal(url):
            raise ConfigInvalid(
                {"url": f"This URL may not be sent to: {refusal}. HEALTHMON_ALLOWED_NETS opens ranges."}
            )
        secret = config.get("secret") or new_secret()
        if not isinstance(secret, str) or not _key(secret):
            raise ConfigInvalid(
                {"secret": "whsec_ followed by 24 to 64 bytes in base64 is needed, or none at all."}
            )
        return {"url": url, "secret": secret}

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        body = json.dumps(envelope.payload, separators=(",", ":")).encode()
        timestamp = str(int(envelope.sent_at.timestamp()))
        try:
            answer = outgoing.post(
                config["url"],
                body,
                {
                    "content-type": "application/json",
                    "user-agent": "healthmon",
                    "webhook-id": envelope.key,
                    "webhook-timestamp": timestamp,
                    "webhook-signature": sign(config["secret"], envelope.key, timestamp, body),
                },
                guard=Guard(settings.HEALTHMON_ALLOWED_NETS),
                timeout=TIMEOUT_SECONDS,
            )
        except outgoing.Refused as refused:
            raise DeliveryFailed(f"The address may not be dialled: {refused}") from None
        except outgoing.Unreachable as problem:
            raise DeliveryFailed(str(problem)) from None
        judge(answer)


def judge(answer: outgoing.Answer) -> None:
    """This will return if an HTTP answer means that the message was taken, and raise DeliveryFailed if not.

    2xx is success. 3xx is not followed: a signed message goes where the owner said. 410 means gone. 429 and 503
    may ask for time. Of the others 4xx are permanent, 5xx are not.
    """
    code = answer.status_code
    if 200 <= code < 300:
        return
    said = f"It answered {code}" + (f": {answer.excerpt}" if answer.excerpt else ".")
    if code == 410:
        raise DeliveryFailed(said, gone=True)
    if code in (429, 503):
        raise DeliveryFailed(said, retry_after=answer.retry_after_seconds)
    raise DeliveryFailed(said, permanent=400 <= code < 500)


def new_secret() -> str:
    """This will return a signing secret of 32 random bytes, `whsec_…`."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


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
