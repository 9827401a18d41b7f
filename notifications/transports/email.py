"""Mail, through the server that EMAIL_URL names. The operator chose that server, so the address guard is not asked.

One mail goes to all recipients in one transaction. When the server takes it for some of them and not for others, it
is sent: those who were taken have it, a second try would be a second copy for them, and a transport remembers
nothing between tries. So before that is accepted, those who were refused for now (4xx) are asked for once more in a
transaction of their own, as RFC 5321, 4.5.3.1.10 has it for "too many recipients"; whoever is still refused is
counted in the log, never passed over in silence. While nobody has it, nothing is lost or doubled: the delivery is
retried, or dead where every refusal is final. The server that EMAIL_URL names is taken to be a relay, which takes
for everybody and goes on trying with each mailbox by itself.
"""

import smtplib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.core.mail.message import sanitize_address
from django.core.validators import validate_email
from django.template.loader import render_to_string

from notifications.messages import with_links
from notifications.transports.base import DeliveryFailed, Envelope, Setting, Transport

log = structlog.get_logger(__name__)

MOST_RECIPIENTS = 50
# EMAIL_TIMEOUT bounds a step of SMTP, and there are a dozen and more. Without a bound of all of them a server that
# takes its time for each outlives the lease, and the mail is sent again and again.
TIMEOUT_SECONDS = 25


def _addresses(given: Any) -> list[str]:
    if not isinstance(given, list) or not given or len(given) > MOST_RECIPIENTS:
        raise ValueError(f"A list of 1 to {MOST_RECIPIENTS} e-mail addresses is needed.")
    for address in given:
        try:
            validate_email(address if isinstance(address, str) and address.isprintable() else "")
        except ValidationError:
            raise ValueError(f"{str(address)[:100]!r} is not an e-mail address.") from None
    return list(dict.fromkeys(given))


class Email(Transport):
    settings = (Setting("to", _addresses, f"a list of 1 to {MOST_RECIPIENTS} e-mail addresses."),)

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout

    def destination(self, config: Mapping[str, Any]) -> str:
        return "smtp"

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        if not django_settings.EMAIL_CONFIGURED:
            raise DeliveryFailed("No mail server is known: set EMAIL_URL and restart.")
        mail = _mail(envelope, config["to"])
        connection = get_connection(fail_silently=False)
        try:
            with _clock(connection, self.timeout), _hung_up_after(connection):
                refused = _sent(connection, mail)
        except smtplib.SMTPRecipientsRefused as nobody:
            codes = _codes(nobody.recipients)
            raise DeliveryFailed(
                f"The mail server refused the recipients ({', '.join(map(str, codes))}).",
                permanent=all(code >= 500 for code in codes),
            ) from None
        except smtplib.SMTPResponseException as refusal:
            # Only what is said of this mail is final. A server that is not there, does not know us (530, 535) or
            # does not want our sender is mended by the operator: those are retried.
            permanent = refusal.smtp_code >= 500 and isinstance(refusal, smtplib.SMTPDataError)
            raise DeliveryFailed(
                f"The mail server answered {refusal.smtp_code}.", permanent=permanent
            ) from None
        except (smtplib.SMTPException, OSError) as problem:
            raise DeliveryFailed(f"The mail server could not be used ({type(problem).__name__}).") from None
        if refused:
            log.warning(
                "mail_recipients_refused",
                webhook_id=envelope.key,
                refused=len(refused),
                of=len(config["to"]),
                codes=_codes(refused),
            )


# --- what is sent ---------------------------------------------------------------------------------------------

RED, AMBER, GREEN, BLUE = "#c62828", "#a15c00", "#1a7f37", "#0b63c5"  # each legible under white letters
_BY_KIND = {"resolved": GREEN, "recovered": GREEN, "acknowledged": BLUE, "test": BLUE}
_BY_SEVERITY = {"critical": RED, "warning": AMBER, "info": BLUE}


def _mail(envelope: Envelope, to: Sequence[str]) -> EmailMultiAlternatives:
    domain = django_settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip("> ") or "localhost"
    mail = EmailMultiAlternatives(
        subject=envelope.subject,
        body=with_links(envelope.text, envelope.links),
        to=list(to),
        # A second copy, should there be one, is shown as the same mail.
        headers={"Message-ID": f"<{envelope.key}@{domain}>", "Auto-Submitted": "auto-generated"},
    )
    mail.attach_alternative(_html(envelope), "text/html")
    return mail


def _html(envelope: Envelope) -> str:
    return render_to_string(
        "notifications/mail.html",
        {
            "subject": envelope.subject,
            "text": envelope.text,
            "colour": _BY_KIND.get(envelope.kind) or _BY_SEVERITY.get(envelope.severity, RED),
            # A runbook is whatever a team says it is; in the text it may stand, but a button is to be followed.
            "links": {k: url for k, url in envelope.links.items() if url.startswith(("https://", "http://"))},
        },
    )


# --- how --------------------------------------------------------------------------------------------------------

_Refused = Mapping[str, tuple[int, bytes]]  # address → code and words


def _sent(connection: BaseEmailBackend, mail: EmailMultiAlternatives) -> _Refused:
    """This will send a mail and return whom it was refused for while others have it. Raises what smtplib raises."""
    if not isinstance(connection, SmtpBackend):
        connection.send_messages([mail])  # a console, a folder, a test's memory
        return {}
    # Django's own send_messages forgets whom the server refused.
    connection.open()
    session: Any = connection.connection
    encoding = mail.encoding or django_settings.DEFAULT_CHARSET
    sender = sanitize_address(mail.from_email, encoding)
    content = mail.message().as_bytes(linesep="\r\n")  # type: ignore[call-arg] # Django's own message has it
    refused = session.sendmail(sender, [sanitize_address(to, encoding) for to in mail.recipients()], content)
    for_now = [address for address, (code, _) in refused.items() if code < 500]
    if for_now:
        # Others have it by now: nothing that happens here may make this a failure.
        with suppress(smtplib.SMTPException, OSError):
            still = session.sendmail(sender, for_now, content)
            return {address: why for address, why in refused.items() if address not in for_now} | still
    return refused


def _codes(refused: _Refused) -> list[int]:
    return sorted({code for code, _ in refused.values()})


@contextmanager
def _hung_up_after(connection: BaseEmailBackend) -> Iterator[None]:
    """This will close a connection, also one that did not get as far as a session.

    A goodbye that fails is nobody's failure: the server has taken the mail, or has said why not, before.
    """
    try:
        yield
    finally:
        with suppress(smtplib.SMTPException, OSError):
            connection.close()


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
