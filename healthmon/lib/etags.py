"""Versions of what people edit: `ETag`, `If-None-Match` to be spared what is known, `If-Match` not to undo another's.

A tag is `"<version>.<shown>"`. The version is of what people write, and changes with `updated_at`; the rest is of
everything that is shown, so also of what machines write, such as a status. `If-None-Match` compares all of it: a 304
promises that nothing looks different. `If-Match` compares the version: a probe that came back between a GET and a
PATCH is no edit that the PATCH could undo.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404
from rest_framework.exceptions import APIException
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

SHOWING = {"retrieve", "create", "update", "partial_update"}
CHANGING = {"PUT", "PATCH", "DELETE"}


class PreconditionFailed(APIException):
    status_code = 412
    default_detail = "It was changed since you read it: its ETag is not the one in If-Match. Read it again."


class Versioned(GenericAPIView):
    """
    For viewsets of objects that show `id` and `updated_at`. It comes first among the bases.

    Changing one happens in a transaction, with its row locked from before it is judged until it is written. So two
    changes at once are judged one after the other, each by what the other left.
    """

    showing = SHOWING  # actions whose answer is the object as it is shown

    def get_object(self) -> Any:
        row = super().get_object()
        if self.request.method not in CHANGING:
            return row
        locked = self.lock(row)
        if locked is None:
            raise Http404("It was deleted a moment ago.")
        check(self.request, locked)
        return locked

    def lock(self, row: Model) -> Any:
        """This will lock a row and return it as it is then; None if it is gone."""
        rows: QuerySet = self.get_queryset()
        # A deletion takes the stronger lock at once: to ask for it later, with the weaker in hand, can be a deadlock.
        weaker = self.request.method != "DELETE"
        return rows.select_for_update(of=("self",), no_key=weaker).filter(pk=row.pk).first()

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            return super().update(request, *args, **kwargs)  # type: ignore[misc]

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            return super().destroy(request, *args, **kwargs)  # type: ignore[misc]

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        if getattr(self, "action", None) in self.showing and response.status_code in (200, 201):
            tag = tag_of(response.data)
            if request.method in ("GET", "HEAD") and _among(tag, request.headers.get("If-None-Match")):
                response = Response(status=304)
            response["ETag"] = tag
        return super().finalize_response(request, response, *args, **kwargs)


def check(request: Request, row: Model | None) -> None:
    """This will compare a row, or that there is none, with If-Match. Raises PreconditionFailed. Lock the row first."""
    wanted = request.headers.get("If-Match")
    if wanted is None:
        return
    if row is None:
        raise PreconditionFailed("There is nothing here yet that If-Match could be compared with.")
    if wanted.strip() == "*":
        return
    version = _version(row.pk, row.updated_at)  # type: ignore[attr-defined]
    if not any(tag.partition(".")[0] == f'"{version}' for tag in _tags(wanted)):
        raise PreconditionFailed


def check_absent(request: Request, row: Model | None) -> None:
    """This will refuse to change what is there already if the request says `If-None-Match: *`."""
    if row is not None and request.headers.get("If-None-Match", "").strip() == "*":
        raise PreconditionFailed("It is there already, and If-None-Match asks for a new one.")


def tag_of(shown: Mapping[str, Any]) -> str:
    """This will return the tag of an object as it is shown."""
    version = _version(shown["id"], datetime.fromisoformat(shown["updated_at"]))
    digest = hashlib.sha256(JSONRenderer().render(shown)).hexdigest()[:16]
    return f'"{version}.{digest}"'


def _version(pk: Any, updated_at: datetime) -> str:
    return hashlib.sha256(f"{pk} {updated_at.timestamp():.6f}".encode()).hexdigest()[:16]


def _tags(header: str) -> Iterable[str]:
    # Ours hold no comma. A weak one never matches If-Match (RFC 9110, section 13.1.1), and does not here: it begins
    # with W/.
    return (tag.strip() for tag in header.split(","))


def _among(tag: str, header: str | None) -> bool:
    if header is None:
        return False
    return header.strip() == "*" or any(each.removeprefix("W/") == tag for each in _tags(header))
