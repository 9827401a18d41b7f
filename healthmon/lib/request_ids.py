"""One id for everything that one request sets off: its answer, its log lines, and those of the tasks it starts.

A caller may bring its own in X-Request-ID; a proxy in front often does. Otherwise it is made here.
"""

import re
import sys
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from celery.signals import before_task_publish, task_postrun, task_prerun
from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
NAME = "request_id"  # in log lines, in problems and in a task's headers
_GOOD = re.compile(r"[A-Za-z0-9._-]{1,128}")


def current() -> str | None:
    """This will return the id of the request, or of the request that started the task, that is being worked on."""
    return structlog.contextvars.get_contextvars().get(NAME)


def accepted(given: str | None) -> str:
    """This will return an id that a caller sent, or a new one where it sent none, or one that logs cannot hold."""
    return given if given and _GOOD.fullmatch(given) else uuid.uuid4().hex


class RequestIds:
    """A middleware, the outermost one: what the others log or refuse has the id already."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = accepted(request.headers.get(HEADER))
        with structlog.contextvars.bound_contextvars(**{NAME: request_id}):
            _tag(request_id)
            response = self.get_response(request)
        response[HEADER] = request_id
        return response


def _tag(request_id: str) -> None:
    # Settings import it where there is a DSN, and nobody else does.
    if sentry := sys.modules.get("sentry_sdk"):
        sentry.set_tag(NAME, request_id)


def follow_tasks() -> None:
    """This will have tasks carry the id of the request that started them, and their log lines show it."""
    before_task_publish.connect(_hand_over)
    task_prerun.connect(_take_up)
    task_postrun.connect(_put_down)


def _hand_over(headers: dict[str, Any] | None = None, **_: object) -> None:
    if headers is not None and (request_id := current()):
        headers.setdefault(NAME, request_id)


def _take_up(*, sender: Any, **_: object) -> None:
    if sender.request.is_eager:
        return  # run in place: it is the caller's already
    given = sender.request.get(NAME)
    # A header of a message is no more to be trusted than one of a request.
    if isinstance(given, str) and _GOOD.fullmatch(given):
        structlog.contextvars.bind_contextvars(**{NAME: given})
        _tag(given)


def _put_down(*, sender: Any, **_: object) -> None:
    if not sender.request.is_eager:
        structlog.contextvars.unbind_contextvars(NAME)
