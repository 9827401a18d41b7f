"""Every address there is: who is let in, and that the schema tells the truth about them."""

import re
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.support.people import JsonClient

OPEN = {
    "/api/v1/auth/token/",
    "/api/v1/auth/token/refresh/",
    "/api/v1/auth/logout/",
    "/api/v1/invitations/accept/",
    "/api/v1/schema/",
    "/api/docs/",
}


def addresses(resolver: URLResolver, prefix: str = "/") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        here = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            # <int:pk>, (?P<pk>[^/.]+) and the ^ and $ of the routers
            yield re.sub(r"<[^>]*>", "1", re.sub(r"\(\?P<\w+>[^)]*\)|[\^$]|\\Z", _one, here))
        else:
            yield from addresses(pattern, here)


def _one(match: re.Match) -> str:
    return "1" if match[0].startswith("(") else ""


API = sorted({url for url in addresses(get_resolver()) if url.startswith("/api/")})


def test_finds_the_addresses():
    assert {"/api/v1/me/", "/api/v1/teams/1/", "/api/v1/monitors/1/", *OPEN} <= set(API)


@pytest.mark.django_db
@pytest.mark.parametrize("url", sorted(set(API) - OPEN))
@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "options", "head"])
def test_lets_nobody_in_who_is_not_logged_in(url, verb):
    answer = getattr(JsonClient(), verb)(url)
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"


def test_draws_the_schema_without_a_warning(tmp_path):
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_serves_the_schema_and_its_pages():
    client = Client()
    schema = client.get("/api/v1/schema/?format=json").json()
    assert schema["openapi"] == "3.1.0"
    for path in schema["paths"].values():
        for verb, operation in path.items():
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}, verb
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert not re.search(rb"https?://", page.content)  # works without the internet


def test_leads_to_the_console():
    answer = Client().get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


@pytest.mark.django_db
def test_shows_metrics():
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    assert b"django_http_requests_before_middlewares_total" in answer.content
