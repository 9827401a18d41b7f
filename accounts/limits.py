"""How often people and programs may call the API, said in one place.

Generous where a dashboard or a deployment calls, strict where a call costs somebody else something: a guess at a
password, a mail, a request to a target. HEALTHMON_RATE_LIMIT_FACTOR multiplies all of them.
"""

from collections.abc import Iterator
from typing import Any

from rest_framework.request import Request

from accounts.authentication import identity
from healthmon.lib.throttling import Limit, Throttle, address, bucket_of

MINUTE, HOUR = 60, 3600

USER = Limit("user", 6_000, MINUTE)
KEY = Limit("key", 6_000, MINUTE)
ADDRESS = Limit("address", 600, MINUTE)  # of those who have not said who they are

# A view names one as `throttle_scope`, or one for each of its actions or methods as `throttle_scopes`.
SCOPES = {
    limit.name: limit
    for limit in (
        Limit("sign-in", 10, MINUTE),  # per address: nobody is known yet
        Limit("invitations", 60, HOUR),
        Limit("tests", 30, MINUTE),
        Limit("check-now", 120, MINUTE),
    )
}


class Limits(Throttle):
    """All limits of a request: the caller's own, and that of the view's scope."""

    def asked(self, request: Request, view: Any) -> Iterator[tuple[Limit, str]]:
        whose = identity(request)
        if whose:
            yield (KEY if whose.startswith("key:") else USER), whose
        else:
            whose = bucket_of(address(request._request))
            yield ADDRESS, whose
        action = getattr(view, "action", None) or str(request.method).lower()
        scope = getattr(view, "throttle_scopes", {}).get(action) or getattr(view, "throttle_scope", None)
        if scope:
            yield SCOPES[scope], whose
