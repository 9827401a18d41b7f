"""The manners of the API: what it takes for JSON, what it refuses, and how it says so (RFC 9457)."""

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from functools import cache
from http import HTTPStatus
from operator import attrgetter
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist, PermissionDenied, RequestDataTooBig
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import ISO_8601, exceptions, fields, serializers
from rest_framework.metadata import SimpleMetadata
from rest_framework.parsers import JSONParser
from rest_framework.response import Response
from rest_framework.settings import api_settings

from healthmon.lib import request_ids
from healthmon.lib.paging import CursorPages

__all__ = [
    "BoundedJSONParser",
    "Conflict",
    "CursorPages",
    "QuickModelSerializer",
    "StrictModelSerializer",
    "StrictSerializer",
    "Verbs",
    "bad_request",
    "not_found",
    "one_line",
    "permission_denied",
    "problem",
    "server_error",
]

PROBLEM = "application/problem+json"
MAX_DEPTH = 32
MAX_ERRORS = 1_000  # a full bulk request with every row wrong still hears of every row


# --- answers ------------------------------------------------------------------------------------------


class Conflict(exceptions.APIException):
    """What was asked does not go with how the object stands."""

    status_code = 409
    default_detail = "This does not go with how the object stands."


class TooLarge(exceptions.APIException):
    status_code = 413
    default_detail = "The request body is too large."


def problem(exc: Exception, context: dict) -> Response | None:
    """
    DRF's exception handler: `{type, title, status, detail, errors: [{pointer, detail}], request_id}` for every error
    it knows; None for the rest, which `server_error` answers after they were logged.
    """
    if isinstance(exc, Http404):
        exc = exceptions.NotFound(*exc.args)
    elif isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied(*exc.args)
    elif isinstance(exc, RequestDataTooBig):
        exc = TooLarge(f"The request body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes.")
    if not isinstance(exc, exceptions.APIException):
        return None

    headers = {}
    if challenge := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    detail: Any
    if isinstance(exc, exceptions.ValidationError):
        errors = _field_errors(exc.detail)
        whole = [error["detail"] for error in errors if error["pointer"] == "#"]
        detail = " ".join(whole) or "Some of what was sent is not valid; `errors` tells what and why."
    else:
        # simplejwt wraps its sentence into a dict of its own.
        detail = exc.detail["detail"] if isinstance(exc.detail, Mapping) else exc.detail
        errors = []
    body = _body(exc.status_code, str(detail), errors)
    return Response(body, status=exc.status_code, headers=headers, content_type=PROBLEM)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_problem(request):
        return _page(HTTPStatus.BAD_REQUEST, "The request is malformed.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_problem(request):
        return _page(HTTPStatus.FORBIDDEN, "You may not do this.")
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_problem(request):
        return _page(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if _wants_problem(request):
        return _page(HTTPStatus.INTERNAL_SERVER_ERROR, "Something broke on our side; it has been logged.")
    return defaults.server_error(request)


def _wants_problem(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _page(status: int, detail: str) -> JsonResponse:
    return JsonResponse(_body(status, detail, []), status=status, content_type=PROBLEM)


def _body(status: int, detail: str, errors: list[dict[str, str]]) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": int(status), "detail": detail, "errors": errors}
    # What to quote to whoever can read the log.
    return body | {"request_id": request_ids.current()}


def _field_errors(detail: Any) -> list[dict[str, str]]:
    errors = (
        {"pointer": "#" + "".join(f"/{_escaped(step)}" for step in path), "detail": text}
        for path, text in _leaves(detail, ())
    )
    return [error for error, _ in zip(errors, range(MAX_ERRORS), strict=False)]


def _leaves(detail: Any, path: tuple) -> Iterator[tuple[tuple, str]]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            about_whole = key == api_settings.NON_FIELD_ERRORS_KEY
            yield from _leaves(value, path if about_whole else (*path, key))
    elif isinstance(detail, list | tuple):
        for index, item in enumerate(detail):
            # A list of sentences is about one place; a list of anything else is about that many rows.
            yield from _leaves(item, path if isinstance(item, str) else (*path, index))
    else:
        yield path, str(detail)


def _escaped(step: Any) -> str:
    """A step of a JSON pointer as it stands in a URI fragment (RFC 6901, sections 3 and 6)."""
    return quote(str(step).replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@", errors="replace")


# --- rows ---------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """How one field of a serializer is shown: its value in a row, and that value as JSON has it (null is null)."""

    name: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] | None  # None: as it was read


class QuickModelSerializer(serializers.ModelSerializer):
    """
    Shows rows by a plan made once per class. DRF makes all fields anew for every request and then, for every value,
    goes through four functions of them: 5 to 10 ms of CPU for a hundred monitors. What is shown is the same, and
    tests/lib/test_showing.py holds every serializer to it.

    The fields of the plan belong to no request: shown values must not hang on `self.context`.
    """

    def to_representation(self, instance: Any) -> Any:
        if not isinstance(instance, Model):
            return super().to_representation(instance)
        shown = {}
        for name, read, write in _plan(type(self)):
            try:
                value = read(instance)
            except fields.SkipField:
                continue
            shown[name] = value if value is None or write is None else write(value)
        return shown


@cache
def _plan(kind: type[serializers.ModelSerializer]) -> list[Shown]:
    model = kind.Meta.model
    return [
        Shown(str(field.field_name), *(_related(field, model) or (_reader(field), _writer(field))))
        for field in kind()._readable_fields
    ]


def _related(field: fields.Field, model: type[Model]) -> tuple[Callable, None] | None:
    if type(field) is not serializers.PrimaryKeyRelatedField or field.pk_field:
        return None
    try:
        return attrgetter(model._meta.get_field(str(field.source)).attname), None  # type: ignore[union-attr]
    except (FieldDoesNotExist, AttributeError):
        return None


def _reader(field: fields.Field) -> Callable[[Any], Any]:
    ask = field.get_attribute
    if type(field).get_attribute is not fields.Field.get_attribute or field.source == "*":
        return ask
    fetch = attrgetter(str(field.source))

    def read(row: Any) -> Any:
        try:
            value = fetch(row)
        except (AttributeError, ObjectDoesNotExist):
            return ask(row)  # it knows of defaults, and what to say
        return ask(row) if callable(value) else value

    return read


def _writer(field: fields.Field) -> Callable[[Any], Any]:
    show = field.to_representation
    own = type(field).to_representation
    if own in _BUILT_IN:
        return _BUILT_IN[own]
    if own is serializers.BooleanField.to_representation:
        return lambda value: value if value is True or value is False else show(value)
    if own is serializers.DateTimeField.to_representation and _in_utc(field):
        # As the database hands it out; anything else is turned into UTC first.
        return lambda value: (
            f"{value.isoformat()[:-6]}Z" if getattr(value, "tzinfo", None) is UTC else show(value)
        )
    return show


def _in_utc(field: fields.Field) -> bool:
    return settings.TIME_ZONE == "UTC" and getattr(field, "format", api_settings.DATETIME_FORMAT) == ISO_8601


_BUILT_IN: dict[Callable, Callable[[Any], Any]] = {
    serializers.CharField.to_representation: str,
    serializers.IntegerField.to_representation: int,
    serializers.FloatField.to_representation: float,
}


class Verbs(SimpleMetadata):
    """
    What OPTIONS answers: the verbs. What to send with them is in the schema; to tell it here, DRF would look the object
    up as a PUT does, locks and all.
    """

    def determine_actions(self, request: Any, view: Any) -> dict:
        return {}


# --- questions ----------------------------------------------------------------------------------------


class BoundedJSONParser(JSONParser):
    """
    JSON as RFC 8259 has it and the database can keep it. Refused with a 400: NaN and infinities (`1e999` is
    one), nesting deeper than 32, NUL and half surrogates in texts. Longer than DATA_UPLOAD_MAX_MEMORY_SIZE
    is a 413; whatever is not application/json a 415.
    """

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            text = stream.read().decode()  # UTF-8, whatever charset is claimed: RFC 8259, section 8.1
            value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        except RecursionError:
            raise exceptions.ParseError(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
        except ValueError as error:
            raise exceptions.ParseError(f"This is not valid JSON: {error}") from None
        _refuse_deep(value)
        # Rare enough to look for the escapes first and walk through the whole document only then.
        if "\\u0000" in text or "\\ud" in text or "\\uD" in text:
            _refuse_unstorable(value)
        return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _containers(value: Any) -> Iterator[list[Any]]:
    """The arrays and objects of a JSON document, level by level from the outside in."""
    level = [value] if isinstance(value, list | dict) else []
    while level:
        yield level
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, list | dict)
        ]


def _refuse_deep(value: Any) -> None:
    for depth, _ in enumerate(_containers(value), start=1):
        if depth > MAX_DEPTH:
            raise exceptions.ParseError(f"The JSON is nested deeper than {MAX_DEPTH} levels.")


def _refuse_unstorable(value: Any) -> None:
    texts = [value]
    for level in _containers(value):
        for node in level:
            texts += [*node, *node.values()] if isinstance(node, dict) else node
    for text in texts:
        if isinstance(text, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            raise exceptions.ParseError("A text holds a NUL or half a surrogate pair; no database keeps it.")


_TYPES: tuple[tuple[type[serializers.Field], tuple[type, ...], str], ...] = (
    (serializers.BooleanField, (bool,), "It is true or false."),
    (serializers.IntegerField, (int, float), "A number is needed."),
    (serializers.FloatField, (int, float), "A number is needed."),
    (serializers.PrimaryKeyRelatedField, (int,), "The id of one is needed, a number."),
    (serializers.CharField, (str,), "A text is needed."),
)


def _mistyped(field: serializers.Field, value: Any) -> Any:
    """
    What is wrong with the JSON type of a value, if DRF would take it for another: `true` or `"10"` for a number,
    7 for a text, `"yes"` or 1 for a flag. None if nothing is, or DRF itself will say.
    """
    if value is None:
        return None
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        return {n: found for n, item in enumerate(value) if (found := _mistyped(field.child, item))}
    if isinstance(field, serializers.ChoiceField) and isinstance(value, str | int | float):
        known = any(isinstance(choice, type(value)) for choice in field.choices)
        return None if known else [field.error_messages["invalid_choice"].format(input=value)]
    for kind, types, sentence in _TYPES:
        if isinstance(field, kind):
            return None if type(value) in types else [sentence]
    return None


def _both(found: Any, more: dict[str, Any]) -> dict[str, Any]:
    """The errors of both; of a list's rows, which are numbered, those of both too."""
    rows = {name: found[name] | more[name] for name in more if isinstance(found.get(name), dict)}
    return found | more | rows


class StrictSerializer(serializers.Serializer):
    """
    Refuses fields it does not know, each by name: a mistyped `intervall_seconds` must not pass in silence. Refuses
    values of another JSON type than the field's too, where DRF would guess what was meant.
    Read-only fields it does know are ignored, so that what was read can be sent back.
    """

    default_error_messages = {"invalid": "An object is needed, not {datatype}."}

    def to_internal_value(self, data: Any) -> Any:
        wrong: dict[str, Any] = {}
        if isinstance(data, Mapping):
            for name, value in data.items():
                if name not in self.fields:
                    wrong[name] = ["There is no such field."]
                elif not self.fields[name].read_only and (mistyped := _mistyped(self.fields[name], value)):
                    wrong[name] = mistyped
        try:
            value = super().to_internal_value(data)
        except exceptions.ValidationError as invalid:
            raise exceptions.ValidationError(_both(invalid.detail, wrong)) from None
        if wrong:
            raise exceptions.ValidationError(wrong)
        return value


def one_line(text: str) -> None:
    """A validator of names: they are shown in lists, and go into mail subjects."""
    # Not `isprintable`: that also refuses a no-break space, and the joiners inside many an emoji and many a word.
    joiners = "\u200c\u200d"
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char not in joiners for char in text):
        raise serializers.ValidationError("This is one line, without control characters.")


class StrictModelSerializer(StrictSerializer, QuickModelSerializer):
    pass
