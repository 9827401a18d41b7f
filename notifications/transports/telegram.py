"""Telegram, as a bot. https://core.telegram.org/bots/api#sendmessage"""

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting, cut, matching
from notifications.transports.http import HttpTransport, Post, as_json, host_of

MESSAGE_CHARS, LINE_CHARS = 4096, 500
CHAT = "A chat's number, such as -1001234567890, or the @name of a public channel or group is needed."
MOST_ID = 2**52  # "at most 52 significant bits", https://core.telegram.org/bots/api#chat


def _a_chat(given: Any) -> int | str:
    if isinstance(given, str) and re.fullmatch(r"@[A-Za-z][A-Za-z0-9_]{3,31}", given):
        return given
    return _a_number(given, -MOST_ID, CHAT)


def _a_thread(given: Any) -> int:
    return _a_number(given, 1, "The number of a topic in the group is needed.")


def _a_number(given: Any, least: int, sentence: str) -> int:
    if isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,16}", given):
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= MOST_ID or given == 0:
        raise ValueError(sentence)
    return given


class _ButtonRefused(DeliveryFailed):
    """Telegram does not like where a button leads, and for that refuses the whole message."""


class Telegram(HttpTransport):
    """Taken is 200. 403 (blocked, removed from the group) and other 4xx are final, 429 says how long."""

    settings = (
        Setting(
            "token",
            matching(r"[0-9]{3,20}:[A-Za-z0-9_-]{20,100}", "A bot's token is needed: 123456:ABC-DEF…"),
            "the bot's token, from @BotFather.",
            secret=True,
        ),
        Setting("chat_id", _a_chat, "the chat's number, or the @name of a public channel or group."),
        Setting("thread_id", _a_thread, "the number of a topic, in a group that has them.", default=None),
    )
    # To a group: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
    rate_per_minute = 20

    def __init__(self, origin: str = "https://api.telegram.org") -> None:
        self.origin = origin

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(self.origin)

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        try:
            super().send(envelope, config)
        except _ButtonRefused:
            lines = [f"{label}: {url}" for label, url in chat.links(envelope)]
            super().send(replace(envelope, text="\n".join([*lines, envelope.text]), links={}), config)

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        # No parse_mode: the text is shown as it is. Names and addresses in it are still found, hence `unmentioned`.
        text = f"{chat.headline(envelope)}\n\n{envelope.text}".strip()
        buttons, lines = [], []
        for label, url in chat.links(envelope):
            if _may_be_button(url):
                buttons.append([{"text": cut(label, 64), "url": url}])
            elif url not in text and len(url) <= LINE_CHARS:
                lines.append(f"{label}: {url}")
        below = "\n\n" + "\n".join(lines) if lines else ""
        room = MESSAGE_CHARS - chat.utf16(below)
        message: dict[str, Any] = {
            "chat_id": config["chat_id"],
            "text": chat.fit(text, room, chat.unmentioned, chat.utf16) + below,
            "link_preview_options": {"is_disabled": True},  # nobody but the reader is to open a link
        }
        if "thread_id" in config:
            message["message_thread_id"] = config["thread_id"]
        if buttons:
            message["reply_markup"] = {"inline_keyboard": buttons}
        return Post(f"{self.origin}/bot{config['token']}/sendMessage", as_json(message))

    def judge(self, answer: outgoing.Answer) -> None:
        code = answer.status_code
        more = answer.json.get("parameters")
        more = more if isinstance(more, dict) else {}
        if code == 429:
            wait = chat.seconds(more.get("retry_after"))
            raise DeliveryFailed(
                "Telegram asks for time (429).",
                retry_after=answer.retry_after_seconds if wait is None else wait,
            )
        if code == 400 and isinstance(moved := more.get("migrate_to_chat_id"), int):
            raise DeliveryFailed(f"The group has a new number: set chat_id to {moved}.", permanent=True)
        if code == 400 and re.search(r"BUTTON_URL_INVALID|button URL", answer.excerpt):
            raise _ButtonRefused(f"Telegram refused a link: {answer.excerpt}", permanent=True)
        if code in (401, 404):  # 404 is what a token gets that was never one
            raise DeliveryFailed("Telegram does not know the bot's token.", permanent=True)
        super().judge(answer)


def _may_be_button(url: str) -> bool:
    """Whether Telegram will take a button that leads there: not to a host without a dot, such as localhost."""
    host = urlsplit(url).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return "." in host.strip(".")
    return False
