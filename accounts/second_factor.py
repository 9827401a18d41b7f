"""Second factors: their secrets sealed at rest, and whether a person has shown one.

What is sealed is bound to its user, so a row copied to somebody else's name opens nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from allauth.account.authentication import get_authentication_records
from allauth.account.stages import LoginStageController
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.internal.constants import LoginStageKey
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import User
from healthmon.lib import sealing

FACTORS = (
    Authenticator.Type.TOTP,
    Authenticator.Type.WEBAUTHN,
)  # recovery codes only stand in for one of these
# Where the sealed text stands in a row's `data`, by type; what `rotate_field_keys` seals anew.
SEALED = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}

_owner: ContextVar[int | None] = ContextVar("second_factor_owner", default=None)


class Adapter(DefaultMFAAdapter):
    def encrypt(self, text: str) -> str:
        return sealing.seal(settings.HEALTHMON_FIELD_KEYS, text, _context())

    def decrypt(self, encrypted_text: str) -> str:
        return sealing.unseal(settings.HEALTHMON_FIELD_KEYS, encrypted_text, _context())

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        # Not the Host header: a passkey belongs to the name that people know the server by.
        return {"id": urlsplit(settings.HEALTHMON_BASE_URL).hostname or "", "name": "healthmon"}


def of_users(users: Any) -> QuerySet[Authenticator]:
    """The second factors of one user's id, or of several's (an `OuterRef`)."""
    return Authenticator.objects.filter(user_id=users, type__in=FACTORS)


def has_one(user: User) -> bool:
    return of_users(user.pk).exists()


def was_shown(request: HttpRequest) -> bool:
    """Whether this browser's session has shown a second factor, or signed in with a passkey."""
    user = request.user
    if not isinstance(user, User):
        return False
    return any(record.get("method") == "mfa" for record in get_authentication_records(request, user))


@transaction.atomic
def code_is_right(user: User, code: str) -> bool:
    """
    Whether `code` is the user's one-time code or an unused recovery code; it is used up by asking.

    For the sign-in that has no pages, the API's: password alone is not enough for whoever `has_one`.
    """
    with _owned_by(user):
        found = Authenticator.objects.select_for_update().filter(user_id=user.pk, type__in=list(SEALED))
        return any(row.wrap().validate_code(code) for row in found)


def take_away(user: User) -> int:
    """Remove all second factors of somebody who has lost theirs, and return how many they were."""
    factors = Authenticator.objects.filter(user_id=user.pk)
    count = factors.filter(type__in=FACTORS).count()
    factors.delete()
    return count


@contextmanager
def _owned_by(user: User) -> Iterator[None]:
    token = _owner.set(user.pk)
    try:
        yield
    finally:
        _owner.reset(token)


def _context() -> str:
    """Whose secret is being sealed or opened: allauth hands over the text alone."""
    owner = _owner.get()
    if owner is None:
        request = context.request
        if request.user.is_authenticated:
            owner = request.user.pk
        elif stage := LoginStageController.enter(request, LoginStageKey.MFA_AUTHENTICATE.value):
            owner = stage.login.user.pk
        else:
            raise PermissionDenied("Nobody is signing in here.")
    return f"second factor:{owner}"
