"""SMS through Twilio's Messages resource. https://www.twilio.com/docs/messaging/api/message-resource"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from healthmon.lib import outgoing
from notifications.transports import chat
from notifications.transports.base import DeliveryFailed, Envelope, Setting, cut, matching
from notifications.transports.http import HttpTransport, Post, host_of, judge

# Twilio takes 1,600 and bills every 153 (or 67, once one of them is not GSM); it advises to stay under 320.
BODY_CHARS = 320
QUEUE_FULL = 21611

_NUMBER = r"\+[1-9][0-9]{6,14}"
_SERVICE = r"MG[0-9a-fA-F]{32}"
_NAME = r"(?=.{0,10}[A-Za-z])[A-Za-z0-9 ]{1,11}"


class Twilio(HttpTransport):
    """Taken is 201. 429 was not processed and is retried, and so is a sender's full queue, which it calls a 400.

    One channel is one number: were there several, one that fails would have the others told again and again. Twilio
    knows no idempotency key, so an answer that is lost on its way may cost a second SMS, but never the first.
    """

    settings = (
        Setting(
            "account_sid",
            matching(r"AC[0-9a-fA-F]{32}", "AC and 32 hexadecimal digits are needed."),
            "the account's SID, AC…",
        ),
        Setting(
            "auth_token",
            matching(r"[0-9a-fA-F]{32}", "A token of 32 hexadecimal digits is needed."),
            "the account's auth token.",
            secret=True,
        ),
        Setting(
            "from",
            matching(
                f"{_NUMBER}|{_SERVICE}|{_NAME}",
                "A number such as +15005550006, a messaging service (MG…) or a name of up to 11 letters and digits.",
            ),
            "who it is from: a number of the account, a messaging service (MG…) or a name.",
        ),
        Setting(
            "to",
            matching(_NUMBER, "One number such as +15005550006 is needed: + and country code, digits only."),
            "the number to tell, such as +15005550006. One: for others make a channel each.",
        ),
    )
    rate_per_minute = (
        60  # a US number sends one segment a second; what is more waits at Twilio, up to 10 hours
    )

    def __init__(self, origin: str = "https://api.twilio.com") -> None:
        self.origin = origin

    def destination(self, config: Mapping[str, Any]) -> str:
        return host_of(self.origin)

    def post(self, envelope: Envelope, config: Mapping[str, Any]) -> Post:
        account, sender = config["account_sid"], config["from"]
        fields = {
            "To": config["to"],
            "MessagingServiceSid" if re.fullmatch(_SERVICE, sender) else "From": sender,
            "Body": _words(envelope),
        }
        login = base64.b64encode(f"{account}:{config['auth_token']}".encode()).decode()
        return Post(
            f"{self.origin}/2010-04-01/Accounts/{account}/Messages.json",
            urlencode(fields).encode(),
            {"authorization": f"Basic {login}"},
            content_type="application/x-www-form-urlencoded",
        )

    def judge(self, answer: outgoing.Answer) -> None:
        if answer.status_code == 400 and answer.json.get("code") == QUEUE_FULL:
            raise DeliveryFailed("It answered 400: the queue of this sender is full.")
        judge(answer)


def _words(envelope: Envelope) -> str:
    words = f"{envelope.subject}\n{envelope.text}"
    if len(words) <= BODY_CHARS:
        return words
    # What is cut is the evidence, not the way to it.
    link = chat.main_link(envelope, longest=BODY_CHARS // 2)
    below = f"\n{link}" if link else ""
    return cut(words, BODY_CHARS - len(below)) + below
