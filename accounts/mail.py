"""The mail that invites. Sent in the request itself: a link that waits on a queue is a link that lies on the broker."""

import smtplib
from datetime import datetime

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.urls import reverse

from accounts.models import Invitation

TIMEOUT_SECONDS = 5  # for each step of SMTP: somebody waits for the answer


class MailFailed(Exception):
    """One sentence: why no mail was sent."""


def invitation_link(token: str) -> str:
    return settings.HEALTHMON_BASE_URL + reverse("invitation", args=[token])


def send_invitation(invitation: Invitation, token: str, now: datetime) -> None:
    """Mail a link, and write down that the server took it. Raises MailFailed."""
    team = " ".join(invitation.team.name.split())  # a subject is one line
    inviter = invitation.invited_by.email if invitation.invited_by else "Somebody"
    mail = EmailMessage(
        subject=f"Join {team} on healthmon",
        body=(
            f"{inviter} invites you to join the team {team} on healthmon, as {invitation.role}.\n\n"
            f"{invitation_link(token)}\n\n"
            f"The link works once, until {invitation.expires_at:%Y-%m-%d %H:%M} UTC. "
            "If you do not know what this is about, leave it: nothing happens.\n"
        ),
        to=[invitation.email],
        headers={"Auto-Submitted": "auto-generated"},
        connection=get_connection(fail_silently=False, timeout=TIMEOUT_SECONDS),
    )
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused:
        raise MailFailed(f"The mail server refuses {invitation.email}.") from None
    except smtplib.SMTPResponseException as refusal:
        raise MailFailed(f"The mail server answered {refusal.smtp_code}.") from None
    except (smtplib.SMTPException, OSError) as problem:
        raise MailFailed(f"The mail server could not be used ({type(problem).__name__}).") from None
    # Not if it was sent again, or used, in the meantime.
    Invitation.objects.filter(pk=invitation.pk, token_hash=invitation.token_hash).update(mailed_at=now)
    invitation.mailed_at = now
