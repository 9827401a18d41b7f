"""Where alerts arrive in tests: a webhook receiver and a mail server, real ones, that remember what came.

    with WebhookSink() as hook, MailSink() as mail:
        hook.script(reply(500), reply(200))
        ... a delivery to hook.url() ...
        assert [got.id for got in hook.received] == [key, key]

They judge nothing: signatures, words and keys are the test's to check.
"""

import asyncio
import email
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage, Message
from time import monotonic, sleep
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.target import Answer, Seen, TargetServer, Wire, reply

WAIT_SECONDS = 20


@dataclass(frozen=True)
class Received:
    """A webhook call as it arrived. `headers` looks names up in any case."""

    path: str
    headers: Message
    body: bytes
    at: datetime

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class WebhookSink(TargetServer):
    """A TargetServer that notes when a call came, and answers from a script while there is one, then 204.

    The script is any of `target`'s answers: reply(503, headers=[("Retry-After", "7")]), hang_up, drip, huge_body, …
    """

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self.received: list[Received] = []
        self.otherwise: Answer = reply(204, b"")
        self._script: deque[Answer] = deque()
        self._noting = threading.Lock()
        self.default = self._note

    def script(self, *answers: Answer) -> Self:
        """Answer the next calls like this, one each."""
        self._script.extend(answers)
        return self

    def wait_for(self, count: int, seconds: float = WAIT_SECONDS) -> list[Received]:
        """Return what came once there are `count` calls. Raises AssertionError if there never are."""
        _wait(lambda: len(self.received) >= count, seconds, f"{count} webhook calls, had {self.received}")
        return list(self.received)

    def _note(self, wire: Wire, seen: Seen) -> None:
        with self._noting:
            self.received.append(Received(seen.path, seen.headers, seen.body, datetime.now(UTC)))
            answer = self._script.popleft() if self._script else self.otherwise
        answer(wire, seen)


@dataclass(frozen=True)
class Mail:
    """A mail as it was taken: `sender` and `recipients` of the SMTP envelope, `message` parsed, `raw` as sent."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    raw: bytes
    at: datetime


class MailSink:
    """An SMTP server on a port of its own; a context manager.

    rcpt, data: what to answer to RCPT and DATA instead of taking them, such as "550 No such user" (for `rcpt` by
    address, or "*" for all). delay: seconds before each of these answers.
    """

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.rcpt: dict[str, str] = {}
        self.data = ""
        self.delay = 0.0

    def __enter__(self) -> Self:
        self._server = _AnyPort(self, hostname="127.0.0.1", port=0)
        self._server.start()
        self.port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def settings(self) -> dict[str, Any]:
        """Return the Django settings that send mail here."""
        return smtp_settings(self.port)

    def url(self) -> str:
        """Return the EMAIL_URL that sends mail here."""
        return f"smtp://127.0.0.1:{self.port}/?from=alerts@example.com"

    def wait_for(self, count: int, seconds: float = WAIT_SECONDS) -> list[Mail]:
        """Return what came once there are `count` mails. Raises AssertionError if there never are."""
        _wait(lambda: len(self.mails) >= count, seconds, f"{count} mails, had {len(self.mails)}")
        return list(self.mails)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self.delay)
        refusal = self.rcpt.get(address) or self.rcpt.get("*")
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.delay)
        if self.data:
            return self.data
        raw = bytes(envelope.content or b"")
        message = email.message_from_bytes(raw, policy=policy.default)
        self.mails.append(
            Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), message, raw, datetime.now(UTC))
        )
        return "250 Taken"


def smtp_settings(port: int) -> dict[str, Any]:
    """Return the Django settings that send mail to a port of this machine."""
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": port,
        "EMAIL_CONFIGURED": True,
    }


class _AnyPort(Controller):
    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # 0 was asked for
        super()._trigger_server()


def _wait(until: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = monotonic() + seconds
    while not until():
        assert monotonic() < deadline, f"waited {seconds:g} s for {what}"
        sleep(0.02)
