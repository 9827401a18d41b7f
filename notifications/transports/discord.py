"""Discord, through a webhook. https://docs.discord.com/developers/resources/webhook#execute-webhook"""

from collections.abc import Mapping
from typing import Any

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting
from notifications.transports.http import HttpTransport, Post, an_https_url, as_json, host_of

CONTENT_CHARS, DESCRIPTION_CHARS = 2000, 4096


class Discord(HttpTransport):
    """Taken is 200. 404 and 401 mean gone: whoever goes on using such a webhook is shut out. 429 says how long."""

    settings = (Setting("url", an_https_url, "the webhook: https://discord.com/api/webhooks/…", secret=True),)
    rate_per_minute = 30  # of a channel's webhooks together

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["url"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        shown = " · ".join(f"[{chat.markdown(label)}]({url})" for label, url in chat.links(envelope, 4, 600))
        room = DESCRIPTION_CHARS - chat.utf16(shown) - 2
        text = chat.fit(envelope.text or envelope.subject, room, chat.markdown, chat.utf16)
        message = {
            "content": chat.fit(chat.headline(envelope), CONTENT_CHARS, chat.markdown, chat.utf16),
            "embeds": [
                {
                    "description": f"{text}\n\n{shown}" if shown else text,
                    "color": chat.look(envelope).colour,
                }
            ],
            "allowed_mentions": {"parse": []},
        }
        return Post(_waiting(config["url"]), as_json(message))

    def judge(self, answer: outgoing.Answer) -> None:
        if answer.status_code in (401, 404):
            raise DeliveryFailed(f"Discord no longer knows this webhook ({answer.status_code}).", gone=True)
        if answer.status_code == 429:
            wait = chat.seconds(
                answer.json.get("retry_after")
            )  # to the millisecond; the header has whole seconds
            raise DeliveryFailed(
                "Discord asks for time (429).",
                retry_after=answer.retry_after_seconds if wait is None else wait,
            )
        super().judge(answer)


def _waiting(url: str) -> str:
    """Return the URL whose answer says whether the message was stored; without `wait` it is always 204."""
    return url.partition("#")[0] + ("&" if "?" in url else "?") + "wait=true"
