"""The web's sign-in, as django-allauth asks us for it: who may join, what is mailed, and what a new password ends."""

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from accounts.authentication import close_sessions
from accounts.models import User
from healthmon.lib.throttling import address


class AccountAdapter(DefaultAccountAdapter):
    """
    No link and no name is taken from the Host header, which is whatever the caller says: a reset link that leads
    to somebody else's server is the key to the account.
    """

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return settings.HEALTHMON_OPEN_SIGN_UP == "yes"

    def is_safe_url(self, url: str) -> bool:
        # Paths alone. What allauth lets through besides is this server under the name in the Host header.
        return url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def get_client_ip(self, request: HttpRequest) -> str:
        return address(request) or super().get_client_ip(request)

    def pre_login(self, request: HttpRequest, user: User, **hook: Any) -> HttpResponse | None:
        vouch_for(user)
        return super().pre_login(request, user, **hook)

    def set_password(self, user: User, password: str) -> None:
        super().set_password(user, password)
        close_sessions(user)  # the API's too: whoever had the old password has nothing any more

    def get_reset_password_from_key_url(self, key: str) -> str:
        uid, _, token = key.partition("-")
        return _link("account_reset_password_from_key", uidb36=uid, key=token)

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: Any) -> str:
        return _link("account_confirm_email", key=emailconfirmation.key)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        site = SimpleNamespace(name="healthmon", domain=settings.HEALTHMON_BASE_URL)
        ours = {
            "current_site": site,
            "signup_url": _link("account_signup") if settings.HEALTHMON_OPEN_SIGN_UP == "yes" else "",
            "password_reset_url": _link("account_reset_password"),
        }
        if "password_reset_url" in context and template_prefix.endswith("password_reset_key"):
            del ours["password_reset_url"]  # it is the one with the key
        super().send_mail(template_prefix, email, context | ours)


def vouch_for(user: User) -> None:
    """
    Have the address of an account that an operator or an invitation made count as verified.

    Whoever signs up by themselves has an address on record from the first moment, and verifies it by mail.
    """
    mailbox = user.email
    known = EmailAddress.objects.filter(user=user).order_by("-primary", "pk").first()
    if known and (not known.verified or known.email == mailbox):
        return
    # An operator gave it, now or anew. Whoever had it before has another one by now, and is vouched for with that.
    with transaction.atomic():
        EmailAddress.objects.filter(Q(user=user) | Q(email__iexact=mailbox, verified=True)).delete()
        EmailAddress.objects.create(user=user, email=mailbox, verified=True, primary=True)


def is_unverified(user: User) -> bool:
    """Whether somebody has signed up with an address that they have not shown to be theirs."""
    known = list(EmailAddress.objects.filter(user=user).values_list("verified", flat=True))
    return settings.EMAIL_CONFIGURED and bool(known) and not any(known)


def offered(request: HttpRequest) -> dict[str, Any]:
    """A context processor: what the pages of an account offer on this server."""
    host = urlsplit(settings.HEALTHMON_BASE_URL).hostname or ""
    return {
        "mail_is_sent": settings.EMAIL_CONFIGURED,
        "sign_up_is_open": settings.HEALTHMON_OPEN_SIGN_UP == "yes",
        "sso_name": settings.HEALTHMON_OIDC_NAME if settings.HEALTHMON_OIDC_ISSUER else "",
        # A browser makes no passkey for an address of numbers.
        "passkeys_work": not host.replace(".", "").isdigit() and ":" not in host,
    }


def _link(name: str, **kwargs: str) -> str:
    return settings.HEALTHMON_BASE_URL + reverse(name, kwargs=kwargs)
