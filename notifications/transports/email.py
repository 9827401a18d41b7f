"""Mail, through the server that EMAIL_URL names. The operator chose that server, so the address guard is not asked."""

import smtplib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.validators import validate_email

from notifications.transports.base import ConfigInvalid, DeliveryFailed, Envelope, refuse_unknown

MOST_RECIPIENTS = 50
# EMAIL_TIMEOUT bounds a step of SMTP, and there are a dozen and more. Without a bound of all of them a server that
# takes its time for each outlives the lease, and the mail is sent again and again.
TIMEOUT_SECONDS = 25


class Email:
    secret_fields: frozenset[str] = frozenset()

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout

    def validate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unknown(config, frozenset({"to"}))
        to = config.get("to")
        if not isinstance(to, list) or not to or len(to) > MOST_RECIPIENTS:
            raise ConfigInvalid({"to": f"A list of 1 to {MOST_RECIPIENTS} e-mail addresses is needed."})
        for address in to:
            try:
                validate_email(address if isinstance(address, str) and address.isprintable() else "")
            except ValidationError:
                raise ConfigInvalid({"to": f"{str(address)[:100]!r} is not an e-mail address."}) from None
        return {"to": list(dict.fromkeys(to))}

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        if not settings.EMAIL_CONFIGURED:
            raise DeliveryFailed("No mail server is known: set EMAIL_URL and restart.")
        domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip("> ") or "localhost"
        connection = get_connection(fail_silently=False)
        mail = EmailMessage(
            subject=envelope.subject,
            body=envelope.text,
            to=list(config["to"]),
            # A second copy, should there be one, is shown as the same mail.
            headers={"Message-ID": f"<{envelope.key}@{domain}>", "Auto-Submitted": "auto-generated"},
            connection=connection,
        )
        try:
            # closing: the backend keeps a connection that did not get as far as a session.
            with _clock(connection, self.timeout), closing(connection):
                mail.send()
        except smtplib.SMTPRecipientsRefused as refused:
            codes = [code for code, _ in refused.recipients.values()]
            raise DeliveryFailed(
                f"The mail server refused the recipients ({', '.join(map(str, sorted(set(codes))))}).",
                permanent=all(code >= 500 for code in codes),
            ) from None
        except smtplib.SMTPResponseException as refused:
            # Only what is said of this mail is final. A server that is not there, does not know us (530, 535) or
            # does not want our sender is mended by the operator: those are retried.
            permanent = refused.smtp_code >= 500 and isinstance(refused, smtplib.SMTPDataError)
            raise DeliveryFailed(
                f"The mail server answered {refused.smtp_code}.", permanent=permanent
            ) from None
        except (smtplib.SMTPException, OSError) as problem:
            raise DeliveryFailed(f"The mail server could not be used ({type(problem).__name__}).") from None


@contextmanager
def _clock(connection: BaseEmailBackend, timeout: float) -> Iterator[None]:
    """This will hang up on the mail server if the block takes longer than `timeout` seconds."""
    done = threading.Event()
    clock = threading.Thread(
        target=_hang_up, args=(connection, done, timeout), name="mail-clock", daemon=True
    )
    clock.start()
    try:
        yield
    finally:
        done.set()
        clock.join()


def _hang_up(connection: BaseEmailBackend, done: threading.Event, timeout: float) -> None:
    while not done.wait(timeout):
        timeout = 0.1  # it may have been between two sockets
        for name in ("connection", "_partial_connection"):  # of Django's SMTP backend; others have none
            sock = getattr(getattr(connection, name, None), "sock", None)
            if sock is not None:
                with suppress(OSError):  # it hung up itself
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
