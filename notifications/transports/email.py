"""Mail, through the server that EMAIL_URL names. The operator chose that server, so the address guard is not asked."""

import smtplib
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, get_connection
from django.core.validators import validate_email

from notifications.transports.base import ConfigInvalid, DeliveryFailed, Envelope, refuse_unknown

MOST_RECIPIENTS = 50


class Email:
    secret_fields: frozenset[str] = frozenset()

    def validate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unknown(config, frozenset({"to"}))
        to = config.get("to")
        if not isinstance(to, list) or not to or len(to) > MOST_RECIPIENTS:
            raise ConfigInvalid({"to": f"A list of 1 to {MOST_RECIPIENTS} e-mail addresses is needed."})
        for address in to:
            try:
                validate_email(address)
            except ValidationError:
                raise ConfigInvalid({"to": f"{str(address)[:100]!r} is not an e-mail address."}) from None
        return {"to": list(dict.fromkeys(to))}

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        if not settings.EMAIL_CONFIGURED:
            raise DeliveryFailed("No mail server is known: set EMAIL_URL and restart.")
        domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip("> ") or "localhost"
        mail = EmailMessage(
            subject=envelope.subject,
            body=envelope.text,
            to=list(config["to"]),
            # A second copy, should there be one, is shown as the same mail.
            headers={"Message-ID": f"<{envelope.key}@{domain}>", "Auto-Submitted": "auto-generated"},
            connection=get_connection(fail_silently=False),
        )
        try:
            mail.send()
        except smtplib.SMTPRecipientsRefused as refused:
            codes = [code for code, _ in refused.recipients.values()]
            raise DeliveryFailed(
                f"The mail server refused the recipients ({', '.join(map(str, sorted(set(codes))))}).",
                permanent=all(code >= 500 for code in codes),
            ) from None
        except smtplib.SMTPResponseException as refused:
            # Wrong credentials (535) and a server that is not there are mended by the operator: those are retried.
            permanent = refused.smtp_code >= 500 and not isinstance(refused, smtplib.SMTPAuthenticationError)
            raise DeliveryFailed(
                f"The mail server answered {refused.smtp_code}.", permanent=permanent
            ) from None
        except (smtplib.SMTPException, OSError) as problem:
            raise DeliveryFailed(f"The mail server could not be used ({type(problem).__name__}).") from None
