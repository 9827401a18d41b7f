"""ntfy, hosted or one's own. https://docs.ntfy.sh/publish/#publish-as-json"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from notifications.transports import chat
from notifications.transports.base import Envelope, Setting, matching
from notifications.transports.http import HttpTransport, Post, a_url, host_of

MESSAGE_BYTES, TITLE_BYTES = 3900, 1000  # a message of more than 4096 bytes becomes a file
BODY_BYTES = 8000  # of JSON; 8192 is refused with 413
MOST_ACTIONS = 3
PRIORITIES = {"critical": 5, "warning": 4, "info": 3}
CALM = frozenset(("resolved", "recovered", "acknowledged", "test"))  # nobody is to be woken for these


def _a_server(given: Any) -> str:
    url = a_url(given)
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(
            "The server's URL is needed alone, such as https://ntfy.sh; the topic has its own field."
        )
    return f"{parts.scheme}://{parts.netloc}"


class Ntfy(HttpTransport):
    """Taken is 200. 401, 403 and other 4xx are final; 429 (too many, or the day's share is used up) and 507 are not."""

    settings = (
        Setting("server", _a_server, "the server's URL.", default="https://ntfy.sh"),
        Setting(
            "topic",
            matching(r"[A-Za-z0-9_-]{1,64}", "A topic of up to 64 letters, digits, _ and - is needed."),
            "the topic. Without a token whoever knows its name reads it: choose one nobody guesses.",
        ),
        Setting(
            "token",
            matching(r"[\x21-\x7e]{1,200}", "An access token is needed: tk_…"),
            "an access token, for a topic that is protected.",
            secret=True,
            default=None,
        ),
    )
    rate_per_minute = 12  # after the first 60, "one per 5 seconds": https://docs.ntfy.sh/publish/#limitations

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(config["server"])

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        priority = PRIORITIES.get(envelope.severity, 5)
        message: dict[str, Any] = {
            "topic": config["topic"],
            "title": chat.fit(chat.headline(envelope), TITLE_BYTES, str, _size),
            "message": chat.fit(envelope.text or envelope.subject, MESSAGE_BYTES, str, _size),
            "priority": min(priority, 3) if envelope.kind in CALM else priority,
        }
        if click := chat.main_link(envelope):
            message["click"] = click
        for label, url in chat.links(envelope, MOST_ACTIONS):
            actions = [*message.get("actions", ()), {"action": "view", "label": label, "url": url}]
            if len(_body(message | {"actions": actions})) <= BODY_BYTES:
                message["actions"] = actions
        headers = {"authorization": f"Bearer {config['token']}"} if "token" in config else {}
        return Post(config["server"] + "/", _body(message), headers)


def _size(text: str) -> int:
    return len(_body(text))


def _body(value: Any) -> bytes:
    # Bytes count here, so letters are not spelled as \u0061.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
