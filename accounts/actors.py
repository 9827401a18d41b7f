"""Who is at work in a request, for the audit."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from accounts.models import ApiKey
from healthmon.lib import audit
from healthmon.lib.audit import Actor


class Acting:
    """A middleware: what a request writes is written down as its sender's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with audit.acting(lambda: sender(request)):
            return self.get_response(request)


def sender(request: HttpRequest) -> Actor:
    """Asked at a write: by then the API's authentication has said who it is, or the console's session does."""
    user = getattr(request, "user", None)
    user_id = user.pk if user is not None and user.is_authenticated else None
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Actor(kind=audit.KEY, name=f"key: {key.name}", user_id=user_id, key_id=key.pk)
    if user is not None and user_id is not None:
        return Actor(kind=audit.PERSON, name=user.get_username(), user_id=user_id)
    return Actor(kind=audit.NOBODY, name="nobody")
