"""Mattermost, through an incoming webhook. https://developers.mattermost.com/integrate/webhooks/incoming/"""

from collections.abc import Mapping
from typing import Any

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting
from notifications.transports.http import HttpTransport, Post, a_url, as_json, host_of

TEXT_CHARS = 4000  # what every version takes; newer ones up to 16,383
NO_SUCH_WEBHOOK = (
    "web.incoming_webhook.invalid.app_error"  # comes with 400; its words are translated, its id is not
)


class Mattermost(HttpTransport):
    """Taken is 200. 400 with the id of a deleted webhook means gone, other 4xx are final, 429 and 5xx are retried.

    501, webhooks are switched off, is retried too: an administrator may be at work.
    """

    settings = (
        Setting("url", a_url, "the incoming webhook: https://mattermost.example.com/hooks/…", secret=True),
    )
    rate_per_minute = 60

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["url"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        headline = chat.fit(chat.headline(envelope), TEXT_CHARS, chat.markdown, chat.utf16)
        text = chat.fit(envelope.text or envelope.subject, TEXT_CHARS, chat.markdown, chat.utf16)
        shown = " · ".join(f"[{chat.markdown(label)}]({url})" for label, url in chat.links(envelope))
        message = {
            "text": headline,
            "attachments": [
                {
                    "fallback": headline,
                    "color": f"#{chat.look(envelope).colour:06x}",
                    "text": f"{text}\n\n{shown}" if shown else text,
                }
            ],
        }
        return Post(config["url"], as_json(message))

    def judge(self, answer: outgoing.Answer) -> None:
        if answer.status_code == 400 and answer.json.get("id") == NO_SUCH_WEBHOOK:
            raise DeliveryFailed("Mattermost no longer knows this webhook.", gone=True)
        super().judge(answer)
