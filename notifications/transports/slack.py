"""Slack, through an incoming webhook. https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

from collections.abc import Mapping
from typing import Any

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting
from notifications.transports.http import HttpTransport, Post, an_https_url, as_json, host_of

BLOCK_CHARS = 3000  # of the text of a section; beyond it the whole message is refused
# Its words for a webhook that will not come back by itself. `action_prohibited` and its kin are an
# administrator's to allow again, so those are refusals of this message only.
GONE = frozenset(
    (
        "no_service", "no_service_id", "no_active_hooks", "no_team", "team_disabled", "invalid_token",
        "channel_not_found", "channel_is_archived",
    )
)  # fmt: skip


class Slack(HttpTransport):
    """Taken is 200 `ok`. 404, 410 and some 403 mean gone, other 4xx are final, 429 says Retry-After."""

    settings = (
        Setting("url", an_https_url, "the incoming webhook: https://hooks.slack.com/services/…", secret=True),
    )
    rate_per_minute = 60  # "1 per second", https://docs.slack.dev/apis/web-api/rate-limits

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["url"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        blocks = [_section("plain_text", _text(envelope.text or envelope.subject))]
        if shown := _links(envelope):
            blocks.append(_section("mrkdwn", shown))
        message = {
            "text": _text(chat.headline(envelope)),
            "mrkdwn": False,
            "unfurl_links": False,  # nobody but the reader is to open a link
            "unfurl_media": False,
            "attachments": [{"color": f"#{chat.look(envelope).colour:06x}", "blocks": blocks}],
        }
        return Post(config["url"], as_json(message))

    def judge(self, answer: outgoing.Answer) -> None:
        if 400 <= answer.status_code < 500 and answer.excerpt in GONE:
            raise DeliveryFailed(f"Slack no longer takes messages here ({answer.excerpt}).", gone=True)
        super().judge(answer)


def _section(kind: str, text: str) -> dict[str, Any]:
    return {
        "type": "section",
        "text": {"type": kind, "text": text} | ({"emoji": False} if kind == "plain_text" else {}),
    }


def _text(text: str) -> str:
    return chat.fit(text, BLOCK_CHARS, escape, chat.utf16)


def _links(envelope: Envelope) -> str:
    # No buttons: an app without an endpoint for them is shown as broken when one is pressed.
    line = ""
    for label, url in chat.links(envelope):
        more = (" · " if line else "") + f"<{escape(url)}|{escape(label)}>"
        line += more if len(line + more) <= BLOCK_CHARS else ""
    return line


def escape(text: str) -> str:
    """This will return a text in which Slack finds no mention and no link of its own notation."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
