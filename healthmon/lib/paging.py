"""Lists by the page, in any order, at one price per page however deep it is."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.core.exceptions import ValidationError as InvalidValue
from django.db.models import Field, Model, Q, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

if TYPE_CHECKING:
    # Not at run time: it is in the middle of being imported when the settings' classes are.
    from rest_framework.views import APIView

LIMIT_DEFAULT, LIMIT_MAX = 50, 200


class Key(NamedTuple):
    """One column of an order."""

    field: Field
    descending: bool


class CursorPages(BasePagination):
    """
    `{"next", "previous", "results"}`; `?limit=` 1..200 (50), `?cursor=` from a link. Bad values are a 400.

    The order is that of the queryset (from an ordering filter, say), else `view.ordering`, else newest
    first; the primary key is added at its end. A cursor holds the values of the row at the edge of the page.
    DRF's own holds the first value and an offset of at most 1,000 rows that share it, and so never gets past
    the 1,001st monitor in an order by status.
    """

    def paginate_queryset(  # type: ignore[override]
        self, queryset: QuerySet, request: Request, view: "APIView | None" = None
    ) -> list:
        self.request = request
        limit = _limit(request)
        keys = _keys(queryset, view)
        backwards, edge = _decoded(request.query_params.get("cursor"), keys)

        if backwards:
            walk = [Key(key.field, not key.descending) for key in keys]
        else:
            walk = keys
        if edge is not None:
            queryset = queryset.filter(_beyond(walk, edge))
        queryset = queryset.order_by(*(f"{'-' if key.descending else ''}{key.field.attname}" for key in walk))
        rows = list(queryset[: limit + 1])  # one more than shown tells whether there is a page after it
        page, more = rows[:limit], len(rows) > limit
        if backwards:
            page.reverse()

        has_next = bool(page) and (backwards or more)
        has_previous = bool(page) and (more if backwards else edge is not None)
        self.next = self._link(False, page[-1], keys) if has_next else None
        self.previous = self._link(True, page[0], keys) if has_previous else None
        return page

    def get_paginated_response(self, data: Sequence) -> Response:
        return Response({"next": self.next, "previous": self.previous, "results": data})

    def _link(self, backwards: bool, row: Model | dict, keys: Sequence[Key]) -> str:
        # Not from the Host header: the caller chooses that one.
        here = settings.HEALTHMON_BASE_URL + self.request.get_full_path()
        return replace_query_param(here, "cursor", _encoded(backwards, row, keys))

    def get_schema_operation_parameters(self, view: "APIView") -> list[dict]:
        limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
        return [
            {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"},
             "description": "From a `next` or `previous` link."},
            {"name": "limit", "in": "query", "required": False, "schema": limit,
             "description": "How many results a page has."},
        ]  # fmt: skip

    def get_paginated_response_schema(self, schema: dict) -> dict:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LIMIT_MAX):
        raise ValidationError({"limit": f"A whole number from 1 to {LIMIT_MAX} is needed."})
    return int(text)


def _keys(queryset: QuerySet, view: "APIView | None") -> list[Key]:
    order = queryset.query.order_by or getattr(view, "ordering", None) or ("-pk",)
    names = [order] if isinstance(order, str) else list(order)
    descending = names[-1].startswith("-")
    meta = queryset.model._meta
    try:
        keys = [
            Key(meta.get_field(name.lstrip("-")), name.startswith("-")) for name in names if name != "-pk"
        ]
    except FieldDoesNotExist as error:
        raise TypeError(f"{queryset.model.__name__} can be paged by its own columns only: {error}") from error
    named = [key.field for key in keys]
    return keys + [Key(field, descending) for field in meta.pk_fields if field not in named]


def _beyond(keys: Sequence[Key], edge: Sequence) -> Q:
    """
    The rows after `edge` in the order of `keys`: (a > x) or (a = x and b > y) or …

    NULL is the greatest value, as it is where PostgreSQL sorts.
    """
    beyond, same = Q(), Q()
    for (field, descending), value in zip(keys, edge, strict=True):
        name = field.attname
        if value is not None:
            further = Q(**{f"{name}__lt" if descending else f"{name}__gt": value})
            if field.null and not descending:
                further |= Q(**{f"{name}__isnull": True})
            beyond |= same & further
            same &= Q(**{name: value})
        else:
            if descending:
                beyond |= same & Q(**{f"{name}__isnull": False})
            same &= Q(**{f"{name}__isnull": True})

    (first, descending), value = keys[0], edge[0]
    if value is not None and (descending or not first.null):
        # Says nothing new, but an index can start from it; from an OR it cannot, and deep pages would crawl.
        beyond &= Q(**{f"{first.attname}__lte" if descending else f"{first.attname}__gte": value})
    return beyond


def _encoded(backwards: bool, row: Model | dict, keys: Sequence[Key]) -> str:
    columns = [key.field.attname for key in keys]
    values = [row[column] if isinstance(row, dict) else getattr(row, column) for column in columns]
    texts = [None if value is None else str(value) for value in values]
    return urlsafe_b64encode(json.dumps([backwards, texts]).encode()).decode().rstrip("=")


def _decoded(cursor: str | None, keys: Sequence[Key]) -> tuple[bool, list[Any] | None]:
    if not cursor:
        return False, None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        backwards, texts = json.loads(urlsafe_b64decode(padded))
        return backwards is True, [_value(key.field, text) for key, text in zip(keys, texts, strict=True)]
    except (ValueError, TypeError, InvalidValue, RecursionError):
        problem = "This is no cursor of this list in this order; begin at its first page."
        raise ValidationError({"cursor": problem}) from None


def _value(field: Field, text: Any) -> Any:
    if text is None and field.null:
        return None
    # str.encode raises for what is no text and for half surrogates; PostgreSQL takes neither these nor NUL.
    if b"\0" in str.encode(text):
        raise ValueError("a NUL in a text")
    return field.to_python(text)
