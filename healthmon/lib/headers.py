"""What every answer tells the browser: what a page may load and do (CSP), and which features it has no use for.

CONTENT_SECURITY_POLICIES maps the beginning of a path to directives; the longest one counts. `{nonce}` in a directive
is 128 bits of chance, other ones at each request, which templates write as `{{ csp_nonce }}`. An answer that brings a
policy of its own keeps it.
"""

import secrets
from collections.abc import Callable, Mapping

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property

CSP = "Content-Security-Policy"


class PolicyHeaders:
    """A middleware, before any that answers by itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    @cached_property
    def policies(self) -> list[tuple[str, str]]:
        """Beginnings of paths with their policies, the longest first."""
        given: Mapping[str, Mapping[str, str]] = settings.CONTENT_SECURITY_POLICIES
        joined = {
            path: "; ".join(f"{name} {value}" for name, value in each.items()) for path, each in given.items()
        }
        return sorted(joined.items(), key=lambda item: -len(item[0]))

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.csp_nonce = chance = secrets.token_urlsafe(16)  # type: ignore[attr-defined]
        response = self.get_response(request)
        policy = next(policy for path, policy in self.policies if request.path.startswith(path))
        response.headers.setdefault(CSP, policy.replace("{nonce}", chance))
        response.headers.setdefault("Permissions-Policy", settings.PERMISSIONS_POLICY)
        response.headers.setdefault("X-Frame-Options", settings.X_FRAME_OPTIONS)  # of static files, too
        return response


def nonce(request: HttpRequest) -> dict[str, str]:
    """A context processor."""
    return {"csp_nonce": getattr(request, "csp_nonce", "")}
