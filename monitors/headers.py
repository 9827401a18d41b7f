"""Headers of a monitor: plain ones are a JSON object; secret ones are sealed, sent, and never read back."""

from collections.abc import Mapping

import structlog
from django.conf import settings

from healthmon.lib import sealing

log = structlog.get_logger(__name__)

# Secret whatever their owner says: nobody means to show a colleague this.
_ALWAYS_SECRET = {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"}
_SECRET_WORDS = ("token", "secret", "password", "credential")


def looks_secret(name: str) -> bool:
    """This will tell whether a header of this name is sealed without being asked."""
    lower = name.lower()
    return lower in _ALWAYS_SECRET or any(word in lower for word in _SECRET_WORDS)


def seal(team_id: int, secret: Mapping[str, str]) -> str:
    """This will return secret headers as one token for the database; empty for none. Another team's row opens none."""
    return sealing.seal(settings.HEALTHMON_FIELD_KEYS, dict(secret), _context(team_id)) if secret else ""


def unseal(team_id: int, token: str) -> dict[str, str]:
    """This will open what `seal` made. Raises sealing.SealBroken."""
    return sealing.unseal(settings.HEALTHMON_FIELD_KEYS, token, _context(team_id)) if token else {}


def readable(team_id: int, token: str) -> dict[str, str]:
    """This will open what `seal` made, or return nothing of what does not open: one lost key must not hide a list."""
    try:
        return unseal(team_id, token)
    except sealing.SealBroken as broken:
        log.error("headers_unreadable", team_id=team_id, problem=str(broken))
        return {}


def _context(team_id: int) -> str:
    return f"monitor headers of team {team_id}"


def masked(value: str) -> str:
    """This will show that a secret is there, and its end if that gives nothing away."""
    return f"***{value[-4:]}" if len(value) >= 16 else "***"
