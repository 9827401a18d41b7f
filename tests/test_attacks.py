"""What broke peers (security holes that were published), tried against every address and field there is.

The rest is tried where it lives: addresses in tests/lib/test_addresses.py and by each transport, templates in
tests/notifications/test_team_templates.py, tokens in tests/accounts/, who may do what in tests/test_matrix.py.
"""

import ast
import importlib
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads
from rest_framework import serializers

from healthmon import environment
from healthmon.celery import app
from healthmon.lib.api import StrictSerializer
from incidents.models import Incident
from monitors import recording
from tests import matrix
from tests.support.people import JsonClient, acme, ada, alice, charlie, client_of, globex
from tests.support.watching import after, monitor, outcome, subscribed, webhook

APPS = ("accounts", "incidents", "monitors", "notifications")

# --- nothing that a caller sends widens what is theirs ------------------------------------------------------------

HEADERS = [
    {"X-Team": "acme"}, {"X-Team": "globex,acme"}, {"X-Team": "*"}, {"X-Team": "%"}, {"X-Team": "' OR 1=1 --"},
    {"X-Team-Id": "1", "X-Tenant": "acme", "Is-Multi-Tenant-Query": "true"},
    {"X-Forwarded-User": "alice@example.com", "Remote-User": "alice@example.com", "X-User": "1"},
    {"X-Original-URL": "/api/v1/me/", "X-HTTP-Method-Override": "DELETE"},
]  # fmt: skip
QUERIES = [
    "team=1",
    "team_id=1",
    "team__slug=acme",
    "monitor__team=1",
    "is_superuser=true",
    "all=1",
    "channel__team=1",
]
LISTS = [
    "monitors", "incidents", "channels", "subscriptions", "deliveries", "message-templates", "audit", "api-keys",
]  # fmt: skip


@pytest.fixture
def stranger(db) -> JsonClient:
    """Of a team that has nothing, while the team acme has something of everything."""
    shop = monitor(acme(), failures_to_open=1, tags=["prod"])
    subscribed(webhook(acme()), scope="all")
    recording.record([outcome(shop, "status", status_code=500)], after(2))
    assert Incident.objects.exists()
    return client_of(charlie(globex()))


@pytest.mark.parametrize("name", LISTS)
def test_nothing_that_is_sent_shows_what_is_another_teams(stranger, name):
    path = f"/api/v1/{name}/"
    own = stranger.get(path).json()["results"]
    assert "acme" not in str(own) and "Shop" not in str(own)
    for headers in HEADERS:
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == (404 if "X-Team" in headers else 200), headers
        assert answer.json().get("results", own) == own, headers
    for query in QUERIES:
        answer = stranger.get(f"{path}?{query}")
        assert answer.status_code in (200, 400), query
        assert answer.json().get("results", own) == own, query


# --- what stands in an address ------------------------------------------------------------------------------------

ODD = [
    "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..", "....//", "%00", "1%00", "%0d%0aX-A:%20b",
    "-1", "0", "1e9", "99999999999999999999", "1;drop", "%E2%98%A0", "%ff", "a" * 5_000,
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("route", [route for route in matrix.routes() if "{" in route])
def test_no_odd_name_in_an_address_finds_or_breaks_anything(route):
    somebody = client_of(alice())
    somebody.raise_request_exception = False
    before, _, behind = route.partition("{")
    behind = behind.partition("}")[2].replace("{", "").replace("}", "")
    for odd in ODD:
        answer = somebody.get(f"{before}{odd}{behind}")
        says_so = route.startswith("/account/")  # a page that tells that the link does not work
        assert answer.status_code in (301, 302, 400, 403, 404, 405, 200 if says_so else 404), odd
        assert "X-A" not in answer.headers


# --- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "order",
    [
        "team__name", "-sealed_headers", "pk;--", "(SELECT 1)", "?", "name,(select pg_sleep(9))",
        "team__members__password",
    ],
)  # fmt: skip
def test_orders_by_what_is_offered_alone(order):
    assert client_of(alice()).get("/api/v1/monitors/", {"ordering": order}).status_code == 400


# --- what nobody writes by sending it -----------------------------------------------------------------------------

NOT_BY_SENDING = {
    "id", "pk", "team", "team_id", "created_at", "updated_at", "created_by", "invited_by", "last_login",
    "date_joined", "joined_at", "status", "status_changed_at", "sealed_headers", "sealed_config", "secret_hash",
    "prefix", "token_hash", "last_used_at", "revoked_at", "mailed_at", "sessions_ended", "groups",
    "user_permissions", "opened_at", "resolved_at", "attempts", "next_attempt_at", "offset_seconds", "health",
    "failures", "for_owners",
}  # fmt: skip
PRIVILEGES = {"role", "is_staff", "is_superuser", "is_active", "scopes"}
# Who hands them out is looked at in the view: an admin, an owner, a superuser.
HANDING_OUT = {"MemberSerializer", "InvitationSerializer", "InvitedSerializer", "UserSerializer", "ApiKeySerializer",
               "ApiKeyMadeSerializer"}  # fmt: skip


def taking_serializers() -> Iterator[type[serializers.ModelSerializer]]:
    modules = [importlib.import_module(f"{name}.serializers") for name in APPS]
    for module in [*modules, importlib.import_module("accounts.users")]:
        for each in vars(module).values():
            # The others show, and take nothing.
            if isinstance(each, type) and issubclass(each, StrictSerializer) and hasattr(each, "Meta"):
                yield each


@pytest.mark.parametrize("kind", sorted(set(taking_serializers()), key=lambda kind: kind.__name__))
def test_takes_nothing_that_is_not_for_writing(kind):
    writable = {name for name, field in kind().fields.items() if not field.read_only}
    assert not writable & NOT_BY_SENDING
    assert kind.__name__ in HANDING_OUT or not writable & PRIVILEGES


# --- what costs time ----------------------------------------------------------------------------------------------

BIG = 100_000
LONG = [
    ("POST", "monitors/", {"name": "x" * BIG, "url": "https://example.com/"}),
    ("POST", "monitors/", {"name": "x", "url": "http://" + "a." * (BIG // 2)}),
    ("POST", "monitors/", {"name": "x", "url": "https://example.com/", "expected_status": "2" * BIG}),
    ("POST", "monitors/", {"name": "x", "url": "https://example.com/", "expected_status": "200-" * (BIG // 4)}),
    ("POST", "monitors/", {"name": "x", "url": "https://example.com/", "tags": ["a" * BIG]}),
    ("POST", "monitors/", {"name": "x", "url": "https://example.com/", "headers": {"a" * BIG: "b"}}),
    ("POST", "monitors/", {"name": "x", "url": "https://example.com/", "external_id": "a" * BIG + "!"}),
    ("GET", "monitors/?search=" + "%25_" * (BIG // 100), None),
    ("GET", "monitors/?cursor=" + "a" * (BIG // 2), None),
    ("POST", "channels/", {"name": "x", "kind": "webhook", "config": {"url": "https://" + "a" * BIG}}),
    ("POST", "channels/", {"name": "x", "kind": "email", "config": {"to": ["a" * BIG + "@example.com"]}}),
    ("POST", "message-templates/", {"kind": "opened", "subject": "{{" * (BIG // 2)}),
    ("POST", "message-templates/", {"kind": "opened", "text": "{{ monitor.name }}" * (BIG // 18)}),
    ("POST", "invitations/accept/", {"token": "a" * BIG}),
    ("POST", "auth/token/refresh/", {"refresh": "a." * (BIG // 2)}),
    ("POST", "auth/token/", {"email": "a" * BIG, "password": "b"}),
    ("POST", "api-keys/", {"name": "a" * BIG, "scopes": ["read"]}),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("verb", "path", "body"), LONG, ids=lambda value: str(value)[:40])
def test_a_long_nonsense_is_refused_quickly(verb, path, body):
    """CPU time, and the best of three: what a quadratic check spends does not depend on who else is at work."""
    somebody, best = client_of(ada()), float("inf")
    somebody.get("/api/v1/me/")
    for _ in range(3):
        began = time.thread_time()
        answer = getattr(somebody, verb.lower())(f"/api/v1/{path}", body)
        best = min(best, time.thread_time() - began)
    assert 400 <= answer.status_code < 500 or verb == "GET"
    assert best < 0.05


@pytest.mark.django_db
def test_a_long_authorization_is_refused_quickly():
    for shown in ("Bearer " + "a." * (BIG // 2), "Bearer " + "e30." * (BIG // 4), "Api-Key hm_" + "a" * BIG):
        began = time.thread_time()
        assert JsonClient().get("/api/v1/me/", headers={"Authorization": shown}).status_code == 401
        assert time.thread_time() - began < 0.05


# --- what is taken off a queue --------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('this was run')",)


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/x-yaml"])
def test_a_message_that_would_be_run_is_refused(content_type):
    with pytest.raises(ContentDisallowed):
        loads(pickle.dumps(Bomb()), content_type, "binary", accept=app.conf.accept_content)


# --- what dials -----------------------------------------------------------------------------------------------------

DIALS = {"requests", "urllib.request", "http.client", "httpx", "aiohttp", "socket", "pycurl", "smtplib", "urllib3",
         "ftplib", "telnetlib", "asyncio", "imaplib", "poplib"}  # fmt: skip
# Who may know how to open a connection, and why that is no way round the guard.
KNOWN_TO_DIAL = {
    "healthmon/lib/addresses.py": "the guard",
    "healthmon/lib/outgoing.py": "HTTP through the guard",
    "healthmon/lib/guarded_requests.py": "requests through the guard",
    "accounts/single_sign_on.py": "a session that mounts guarded_requests",
    "accounts/web.py": "catches what requests raises",
    "accounts/mail.py": "catches what smtplib raises; the server is the operator's",
    "notifications/transports/email.py": "through the guard, or to the operator's server",
    "monitors/probing/http.py": "libcurl; its open-socket hook asks the guard",
    "monitors/probing/loop.py": "libcurl; its open-socket hook asks the guard",
    "monitors/probing/answer.py": "reads what libcurl has measured",
    "monitors/probing/errors.py": "libcurl's error numbers",
    "monitors/probing/names.py": "resolves names; dials nothing",
    "healthmon/agent.py": "its own host's name",
    "healthmon/alive.py": "asks healthmon's own process",
    "healthmon/client.py": "for commands on the machine itself, to healthmon",
    "healthmon/run.py": "asks healthmon's own process",
    "healthmon/embedded.py": "healthmon's own servers",
}


def test_nothing_else_knows_how_to_dial():
    found = set()
    for folder in ("healthmon", *APPS):
        for path in sorted((environment.PROJECT / folder).rglob("*.py")):
            if DIALS & set(imported(path)):
                found.add(str(path.relative_to(environment.PROJECT)))
    assert found == set(KNOWN_TO_DIAL)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
