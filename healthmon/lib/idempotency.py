"""POSTs that may be sent again: `Idempotency-Key` names a request, and what it did is done once.

1. A lock on (caller, team, key), taken without waiting: who does not get it has sent the same twice at once (409).
2. An answer that is kept: given again, if the request is the same one; if it is another, a 422.
3. Else the view does its work, and its answer is kept, *in the transaction of that work*.

So there is no moment at which the work is done and the answer is not kept: killed before the commit nothing has
happened, and the next try does it; killed after it, the next try is given the answer. That holds for what is in
the database. What a view sends elsewhere goes by a row that commits along (as deliveries do), or on commit; what it
sends at once, such as the mail of an invitation, can be sent twice by a crash before the commit.

Of answers that say no, those are not kept that another try may turn: what is under way or in another state (409),
too much (429), and what broke (5xx, which also undoes the work).
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple, Protocol

from django.db import connection, transaction
from django.utils.crypto import salted_hmac
from rest_framework import exceptions
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from healthmon.lib.api import Conflict

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_FOR = timedelta(hours=24)
_GOOD = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_KEPT = {409, 429}


class Reused(exceptions.APIException):
    status_code = 422
    default_detail = "This Idempotency-Key was sent with another request; a new one needs a key of its own."


class Name(NamedTuple):
    """Which request: whose, on what team (None: on none), and the key that was sent."""

    caller: str
    team_id: int | None
    key: str

    def __str__(self) -> str:
        return f"{self.caller}:{self.team_id or ''}:{self.key}"


class Answer(NamedTuple):
    """What was answered. headers: those that the view set itself."""

    status: int
    data: Any
    headers: Mapping[str, str]
    content_type: str | None


class Store(Protocol):
    """Where answers are kept. Called inside the transaction, with the lock on the name held."""

    def find(self, name: Name, since: datetime) -> tuple[str, Answer] | None:
        """This will return the fingerprint and the answer kept under a name since then; None if there is none."""

    def keep(self, name: Name, fingerprint: str, answer: Answer, now: datetime) -> None:
        """This will keep an answer, in place of one that is too old."""


class Idempotent(GenericAPIView):
    """A view whose POSTs honour `Idempotency-Key`. It comes first among the bases, and says who and where."""

    answers: ClassVar[Store]

    def idempotency_scope(self, request: Request) -> tuple[str, int | None]:
        """This will return the caller, and the id of the team if there is one."""
        raise NotImplementedError

    def idempotency_now(self) -> datetime:
        """This will return the present moment."""
        raise NotImplementedError

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get(HEADER)
        # By now it is known who it is, that they may, and that it is not too much.
        if key is not None and request.method == "POST":
            if not _GOOD.fullmatch(key):
                raise exceptions.ValidationError(
                    f"{HEADER} is 1 to 255 printable ASCII characters without spaces, such as a UUID."
                )
            self.post = self._once(Name(*self.idempotency_scope(request), key), getattr(self, "post", None))

    def _once(self, name: Name, work: Callable[..., Response] | None) -> Callable[..., Response]:
        def post(request: Request, *args: Any, **kwargs: Any) -> Response:
            fingerprint = _fingerprint(request)
            now = self.idempotency_now()
            with transaction.atomic():
                if not _locked(name):
                    raise Conflict(
                        f"A request with this {HEADER} is under way. Try again when it has been answered."
                    )
                found = self.answers.find(name, now - KEPT_FOR)
                if found is not None:
                    kept_fingerprint, answer = found
                    if kept_fingerprint != fingerprint:
                        raise Reused
                    return _again(answer)
                response = self._worked(work or self.http_method_not_allowed, request, *args, **kwargs)
                if response.status_code < 500 and response.status_code not in _NOT_KEPT:
                    self.answers.keep(name, fingerprint, _kept(response), now)
            return response

        return post

    def _worked(self, work: Callable[..., Response], request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            with transaction.atomic():  # what a refusal leaves undone is undone, and the refusal still kept
                return work(request, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - `handle_exception` raises what it does not know
            return self.handle_exception(exc)


def _locked(name: Name) -> bool:
    # Held until the transaction ends, however it ends. Two names of one hash would at worst be told to try again.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"idempotency:{name}"])
        return bool(cursor.fetchone()[0])


def _fingerprint(request: Request) -> str:
    """Keyed: a plain hash of a short secret in a body could be found by trying."""
    asked = b"\0".join(
        [
            request._request.get_full_path().encode(errors="surrogatepass"),
            (request.content_type or "").encode(errors="surrogatepass"),
            request._request.body,
        ]
    )
    return salted_hmac("healthmon.idempotency", asked, algorithm="sha256").hexdigest()


def _kept(response: Response) -> Answer:
    data = None if response.data is None else json.loads(JSONRenderer().render(response.data))
    headers = {name: value for name, value in response.headers.items() if name.lower() != "content-type"}
    return Answer(response.status_code, data, headers, response.content_type)


def _again(answer: Answer) -> Response:
    return Response(
        answer.data,
        status=answer.status,
        headers={**answer.headers, REPLAYED: "true"},
        content_type=answer.content_type,
    )
