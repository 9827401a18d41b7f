"""Headers of a monitor: plain ones are a JSON object; secret ones are sealed, sent, and never read back."""

from collections.abc import Mapping

from django.conf import settings

from healthmon.lib import sealing

_CONTEXT = "monitor headers"
# Secret whatever their owner says: nobody means to show a colleague this.
_ALWAYS_SECRET = {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"}
_SECRET_WORDS = ("token", "secret", "password", "credential")


def looks_secret(name: str) -> bool:
    """This will tell whether a header of this name is sealed without being asked."""
    lower = name.lower()
    return lower in _ALWAYS_SECRET or any(word in lower for word in _SECRET_WORDS)


def seal(secret: Mapping[str, str]) -> str:
    """This will return secret headers as one token for the database; empty for none."""
    return sealing.seal(settings.HEALTHMON_FIELD_KEYS, dict(secret), _CONTEXT) if secret else ""


def unseal(token: str) -> dict[str, str]:
    """This will open what `seal` made. Raises sealing.SealBroken."""
    return sealing.unseal(settings.HEALTHMON_FIELD_KEYS, token, _CONTEXT) if token else {}


def masked(value: str) -> str:
    """This will show that a secret is there, and its end if that gives nothing away."""
    return f"***{value[-4:]}" if len(value) >= 16 else "***"
