"""What every transport over HTTP has in common: one POST through the guard, and what its answer means."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from healthmon.lib import outgoing
from healthmon.lib.addresses import Guard, url_problem
from notifications.transports.base import DeliveryFailed, Envelope, Transport

TIMEOUT_SECONDS = 15  # name, connection, answer: all of it


@dataclass(frozen=True, slots=True, repr=False)  # each of its fields is a secret for one provider or another
class Post:
    """A request to be made: where to, what, and with which headers beside the usual ones."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class HttpTransport(Transport):
    """A subclass says what to POST (`post`, pure) and, where its provider has words of its own, what comes back."""

    timeout_seconds = TIMEOUT_SECONDS

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        """Return the request that tells of a message."""
        raise NotImplementedError

    def judge(self, answer: outgoing.Answer) -> None:
        """This will return if an answer means that the message was taken, and raise DeliveryFailed if not."""
        judge(answer)

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        post = self.post(envelope, config)
        try:
            answer = outgoing.post(
                post.url,
                post.body,
                {"content-type": post.content_type, "user-agent": "healthmon"} | dict(post.headers),
                guard=Guard(settings.HEALTHMON_ALLOWED_NETS),
                timeout=self.timeout_seconds,
            )
        except outgoing.Refused as refused:
            raise DeliveryFailed(f"The address may not be dialled: {refused}") from None
        except outgoing.Unreachable as problem:
            raise DeliveryFailed(str(problem)) from None
        self.judge(answer)


def as_json(value: Any) -> bytes:
    """Return a value as the bytes of a JSON body."""
    return json.dumps(value, separators=(",", ":")).encode()


def a_url(given: Any) -> str:
    """Return a URL that may be sent to. Raises ValueError with a sentence."""
    if not isinstance(given, str):
        raise ValueError("A URL is needed.")
    if problem := url_problem(given):
        raise ValueError(f"This URL {problem}.")
    if refusal := Guard(settings.HEALTHMON_ALLOWED_NETS).url_refusal(given):
        raise ValueError(f"This URL may not be sent to: {refusal}. HEALTHMON_ALLOWED_NETS opens ranges.")
    return given


def an_https_url(given: Any) -> str:
    """Return a URL that may be sent to and that nobody can read on its way. Raises ValueError with a sentence."""
    if isinstance(given, str) and not given.lower().startswith("https://"):
        raise ValueError("A URL that starts with https:// is needed.")
    return a_url(given)


def host_of(url: str) -> str:
    """Return `host:port` of a URL, for `Transport.destination`."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def judge(answer: outgoing.Answer) -> None:
    """This will return if an HTTP answer means that the message was taken, and raise DeliveryFailed if not.

    2xx is success. 3xx is not followed: a message goes where the owner said. 410 means gone. 429 and 503 may ask for
    time. Of the others 4xx are permanent, 5xx are not.
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
