"""Every route of the URLconf × every verb × everybody who might ask, against a table that people have read.

The table is tests/matrix.txt; `python -m tests.matrix` prints what is answered today.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction

from tests import matrix
from tests.matrix import World, callers, read, routes, verbs, written

pytestmark = pytest.mark.django_db

EXPECTED = read(matrix.TABLE.read_text())
ROUTES = routes()
# The first is named by the caller, and each team has its own; the other is the same for every team.
NOBODY_ELSES = {"/api/v1/monitors/by-external-id/{external_id}/", "/api/v1/regions/{pk}/"}


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker) -> Iterator[World]:
    with django_db_blocker.unblock(), transaction.atomic():
        yield World()
        transaction.set_rollback(True)


@pytest.mark.parametrize("route", ROUTES)
def test_answers_as_the_table_says(world, route):
    lines = world.asked(route)
    wrong = [line for line in lines if EXPECTED.get((route, line.verb)) != line.answers]
    if not wrong:
        return
    missing = [line for line in wrong if (route, line.verb) not in EXPECTED]
    told = [f"{matrix.heading(callers(route))}"]
    if missing:
        told += ["tests/matrix.txt has no line for this; if that is right, add", written(missing)]
    for line in wrong:
        if line not in missing:
            expected = matrix.Line(route, line.verb, EXPECTED[route, line.verb])
            told += ["expected", written([expected]), "answered", written([line])]
    pytest.fail("\n".join(told), pytrace=False)


def test_the_table_has_no_line_of_a_route_that_is_gone():
    assert {route for route, _ in EXPECTED} <= set(ROUTES)
    for route, verb in EXPECTED:
        assert verb in verbs(route), (route, verb)


def test_nothing_breaks():
    broken = {route for (route, _), answers in EXPECTED.items() if max(answers) >= 500}
    assert broken == {"/healthz/ready"}  # nothing ticks in these tests


@pytest.mark.parametrize("who", ["anon", "junk", "late", "k-late", "k-gone"])
def test_the_table_lets_nobody_in_without_credentials(who):
    """Said of the table, so that no draft that was taken over unread opens a door."""
    open_ones = {
        route
        for (route, verb), answers in EXPECTED.items()
        if route.startswith("/api/v1/") and answers[callers(route).index(who)] != 401
    }
    door = {"/api/v1/auth/token/", "/api/v1/auth/token/refresh/", "/api/v1/auth/logout/", "/api/v1/schema/"}
    # Who is not known yet may accept an invitation; who says to be somebody, and is not, may not.
    assert open_ones == door | ({"/api/v1/invitations/accept/"} if who == "anon" else set())


@pytest.mark.parametrize("who", ["alien", "k-alien"])
def test_the_table_shows_no_object_to_another_team(who):
    for (route, verb), answers in EXPECTED.items():
        if route.startswith("/api/v1/") and "{" in route and route not in NOBODY_ELSES:
            answer = answers[callers(route).index(who)]
            # OPTIONS tells of the address, 403 of the role or the key, and none of them of the object.
            assert answer in (403, 404, 405) or verb == "OPTIONS", (route, verb, who)


if "MATRIX_DRAFT" in os.environ:  # by `python -m tests.matrix`

    def test_draft(world):
        Path(os.environ["MATRIX_DRAFT"]).write_text(
            matrix.draft(line for route in ROUTES for line in world.asked(route))
        )
