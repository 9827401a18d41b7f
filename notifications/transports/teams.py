"""Microsoft Teams, through the webhook of a workflow ("Post to a channel when a webhook request is received").

https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
"""

from collections.abc import Mapping
from typing import Any

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting, cut
from notifications.transports.http import HttpTransport, Post, an_https_url, as_json, host_of

# A message may have 28 KB; beyond it the workflow fails after it said that all is well. Texts are the greater part.
TEXT_BYTES = 16_000
CARD_VERSION = "1.4"  # workflows show nothing of a newer one


class Teams(HttpTransport):
    """Taken is 202. 404 WorkflowNotFound means gone, other 4xx are final, 429 says Retry-After."""

    settings = (
        Setting(
            "url",
            an_https_url,
            "the URL of a workflow made of “Post to a channel when a webhook request is received”.",
            secret=True,
        ),
    )
    # The door takes four a second, but who posts behind it is held to one, and what he drops nobody tells us.
    rate_per_minute = 60

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["url"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        headline = _line(cut(chat.headline(envelope), 300))
        headline["inlines"][0] |= {"weight": "Bolder", "size": "Medium"}
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": CARD_VERSION,
            "msteams": {"width": "Full"},
            "body": [
                {
                    "type": "Container",
                    "style": chat.look(envelope).mood,
                    "bleed": True,
                    "items": [headline],
                },
                *chat.fit(envelope.text, TEXT_BYTES, _lines, lambda lines: len(as_json(lines))),
            ],
            "actions": [
                {"type": "Action.OpenUrl", "title": cut(label, 100), "url": url}
                for label, url in chat.links(envelope, most=4, longest=1500)
            ],
        }
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": card,
        }
        return Post(config["url"], as_json({"type": "message", "attachments": [attachment]}))

    def judge(self, answer: outgoing.Answer) -> None:
        error = answer.json.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if answer.status_code == 404 and code == "WorkflowNotFound":
            raise DeliveryFailed("The workflow is no more.", gone=True)
        if answer.status_code == 400 and code == "WorkflowTriggerIsNotEnabled":
            raise DeliveryFailed("The workflow is switched off.", permanent=True)
        if answer.status_code == 200 and b"Microsoft Teams endpoint returned HTTP error" in answer.body:
            # A connector, as there were before workflows: when it was throttled it said so with 200.
            raise DeliveryFailed(f"Teams did not take it: {answer.excerpt}")
        super().judge(answer)


def _lines(text: str) -> list[dict[str, Any]]:
    return [_line(line) for line in text.splitlines() if line.strip()]


def _line(text: str) -> dict[str, Any]:
    # Of all text in a card only a run is shown as it is: a TextBlock is Markdown, and knows no way to escape it.
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]}
