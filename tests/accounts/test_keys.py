"""API keys: what is kept of one, what each scope may do, and every way for one to end."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client

from accounts import tokens
from accounts.authentication import USE_NOTED_EVERY, note_use, standing_key
from accounts.models import ApiKey, Role, Scope, User
from accounts.permissions import OF_INCIDENTS, scopes_allow
from accounts.services import create_key
from incidents.models import Incident, IncidentEvent
from monitors import recording
from notifications.models import Delivery
from tests.support.people import (
    JsonClient,
    acme,
    ada,
    alice,
    anonymous,
    bob,
    charlie,
    client_of,
    globex,
    key_client,
    member,
    vera,
)
from tests.support.watching import after, monitor, outcome, subscribed, webhook
from tests.test_urls import API

pytestmark = pytest.mark.django_db

KEYS = "/api/v1/api-keys/"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def with_key(shown: str, scheme: str = "Api-Key") -> JsonClient:
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=f"{scheme} {shown}")
    return client


def made(*scopes: Scope, **given) -> tuple[ApiKey, str]:
    return create_key(acme(), "deploy", scopes or (Scope.READ,), **({"by": alice(), "now": NOW} | given))


# --- making ---------------------------------------------------------------------------------------------------


def test_shows_a_key_once_and_keeps_a_digest_of_its_secret():
    client = client_of(ada())
    answer = client.post(KEYS, {"name": "CI", "scopes": ["write", "read", "read"]})
    assert answer.status_code == 201, answer.content
    shown = answer.json()["key"]
    hm, prefix, secret = shown.split("_")
    assert (hm, prefix) == ("hm", answer.json()["prefix"])
    assert len(secret) * 5.954 > 255.9  # bits, at 62 signs to choose from
    assert answer.json()["scopes"] == ["read", "write"]
    assert (answer.json()["created_by"], answer.json()["revoked_at"]) == ("ada@example.com", None)

    again = client.get(f"{KEYS}{answer.json()['id']}/").json()
    assert again == {name: value for name, value in answer.json().items() if name != "key"}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT k::text FROM accounts_apikey k UNION ALL SELECT a::text FROM accounts_auditentry a"
        )
        rows = str(cursor.fetchall())
    assert secret not in rows
    assert hashlib.sha256(secret.encode()).hexdigest() == ApiKey.objects.get().secret_hash
    assert with_key(shown).get("/api/v1/monitors/").status_code == 200


def test_makes_no_two_keys_alike():
    keys = [tokens.new_key() for _ in range(50)]
    assert len({key.prefix for key in keys}) == len({key.kept for key in keys}) == 50
    assert all(re.fullmatch(r"hm_[A-Za-z0-9]{10}_[A-Za-z0-9]{43}", key.shown) for key in keys)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"scopes": ["read"]}, "#/name"),
        ({"name": "x" * 101, "scopes": ["read"]}, "#/name"),
        ({"name": "a\nb", "scopes": ["read"]}, "#/name"),
        ({"name": "CI"}, "#/scopes"),
        ({"name": "CI", "scopes": []}, "#/scopes"),
        ({"name": "CI", "scopes": "read"}, "#/scopes"),
        ({"name": "CI", "scopes": ["admin"]}, "#/scopes/0"),
        ({"name": "CI", "scopes": ["read"] * 4}, "#/scopes"),
        ({"name": "CI", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"name": "CI", "scopes": ["read"], "expires_at": "soon"}, "#/expires_at"),
        ({"name": "CI", "scopes": ["read"], "team": 1}, "#/team"),
        ({"name": "CI", "scopes": ["read"], "secret_hash": "0" * 64}, "#/secret_hash"),
    ],
)
def test_refuses_an_odd_key_and_says_where(given, pointer):
    answer = client_of(ada()).post(KEYS, given)
    assert answer.status_code == 400, answer.content
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert not ApiKey.objects.exists()


def test_takes_nothing_from_the_maker_that_is_not_theirs_to_say():
    given = {"name": "CI", "scopes": ["read"], "prefix": "chosen", "created_by": "x@example.com", "id": 7}
    given |= {"last_used_at": "2020-01-01T00:00:00Z", "revoked_at": "2020-01-01T00:00:00Z"}
    answer = client_of(ada()).post(KEYS, given)
    assert answer.status_code == 201, answer.content
    key = ApiKey.objects.get()
    assert (key.created_by, key.last_used_at, key.revoked_at) == (ada(), None, None)
    assert key.prefix != "chosen"


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "everything"]])
def test_the_database_refuses_scopes_that_nobody_knows(scopes):
    with pytest.raises(IntegrityError, match="apikey_scopes"), transaction.atomic():
        ApiKey.objects.create(team=acme(), name="x", prefix="x", secret_hash="x", scopes=scopes)


@pytest.mark.parametrize(
    # may:      list   make   revoke
    ("person", "may"),
    [(vera, False), (bob, False), (ada, True), (alice, True)],
)
def test_takes_an_admin_to_see_make_and_revoke(person, may):
    key, _ = made()
    client = client_of(person())
    one = f"{KEYS}{key.pk}/"
    answers = [
        client.get(KEYS), client.get(one), client.post(KEYS, {"name": "x", "scopes": ["read"]}), client.delete(one)
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == ([200, 200, 201, 204] if may else [403] * 4)


def test_hides_the_keys_of_other_teams():
    key, _ = made()
    client = client_of(charlie())
    assert client.get(KEYS).json()["results"] == []
    assert client.get(f"{KEYS}{key.pk}/").status_code == client.delete(f"{KEYS}{key.pk}/").status_code == 404
    key.refresh_from_db()
    assert key.revoked_at is None


# --- being one --------------------------------------------------------------------------------------------------


def test_a_key_is_of_one_team(django_assert_num_queries):
    shop = monitor(acme())
    client = key_client("read")
    client.get("/api/v1/monitors/")  # notes its use, as once a minute
    with django_assert_num_queries(2):  # the key with its team, and the row
        assert client.get(f"/api/v1/incidents/{shop.pk}/").status_code == 404
    assert client.get("/api/v1/monitors/", headers={"X-Team": "acme"}).status_code == 200
    for foreign in (globex().slug, "no-such-team", "ACME"):
        answer = client.get("/api/v1/monitors/", headers={"X-Team": foreign})
        assert (answer.status_code, answer.json()["detail"]) == (404, "No such team.")
    assert key_client("write", team=globex()).get(f"/api/v1/monitors/{shop.pk}/").status_code == 404


def test_reads_the_scheme_in_any_case():
    _, shown = made()
    for scheme in ("Api-Key", "api-key", "API-KEY"):
        assert with_key(shown, scheme).get("/api/v1/monitors/").status_code == 200


def forgeries() -> dict[str, str]:
    """What is no key: by what is wrong with it."""
    key, shown = made()
    _, revoked = (gone := made(), gone[1])
    ApiKey.objects.filter(pk=gone[0].pk).update(revoked_at=NOW)
    _, expired = made(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    hm, prefix, secret = shown.split("_")
    return {
        "nothing": "",
        "nonsense": "nonsense",
        "no secret": f"{hm}_{prefix}",
        "an empty secret": f"{hm}_{prefix}_",
        "the digest": f"{hm}_{prefix}_{key.secret_hash}",
        "another secret": f"{hm}_{prefix}_{tokens.new_token()}",
        "another prefix": f"{hm}_{'x' * 10}_{secret}",
        "one sign more": f"{shown}x",
        "one sign less": shown[:-1],
        "another beginning": shown.replace("hm_", "gh_"),
        "another key's secret": f"{hm}_{prefix}_{made()[1].split('_')[2]}",
        "two of them": f"{shown} {shown}",
        "no ASCII": f"{hm}_{prefix}_{'é' * 43}",
        "a long one": "hm_" + "a" * 100_000,
        "a quote": f"{hm}_' OR 1=1 --_{secret}",
        "revoked": revoked,
        "expired": expired,
    }


def test_refuses_what_is_no_key_alike():
    details = set()
    for flaw, shown in forgeries().items():
        answer = with_key(shown).get("/api/v1/monitors/")
        assert answer.status_code == 401, flaw
        assert answer["Content-Type"] == "application/problem+json"
        assert "Api-Key" in answer["WWW-Authenticate"]
        details.add(answer.json()["detail"])
    assert len(details) == 1


def test_a_key_is_no_access_token_and_a_token_no_key():
    _, shown = made()
    access = client_of(alice())._credentials["HTTP_AUTHORIZATION"].split()[1]
    assert with_key(shown, "Bearer").get("/api/v1/monitors/").status_code == 401
    assert with_key(access).get("/api/v1/monitors/").status_code == 401


def test_ends_at_its_moment():
    _, shown = made(expires_at=NOW)
    assert standing_key(shown, NOW - timedelta(microseconds=1))
    assert standing_key(shown, NOW) is None


def test_ends_when_it_is_revoked():
    key, shown = made()
    client = with_key(shown)
    assert client.get("/api/v1/monitors/").status_code == 200
    owner = client_of(alice())
    assert owner.delete(f"{KEYS}{key.pk}/").status_code == 204
    assert client.get("/api/v1/monitors/").status_code == 401
    key.refresh_from_db()
    first = key.revoked_at
    assert owner.delete(f"{KEYS}{key.pk}/").status_code == 204
    key.refresh_from_db()
    assert key.revoked_at == first
    assert [row["id"] for row in owner.get(KEYS).json()["results"]] == [key.pk]


def test_goes_with_its_team():
    _, shown = made()
    acme().delete()
    assert standing_key(shown, NOW) is None


def test_goes_on_without_its_maker():
    """It is the team's. Who removes a member is the team, and that is another matter: see test_members."""
    _, shown = made(by=ada())
    User.objects.filter(pk=ada().pk).update(is_active=False)
    assert with_key(shown).get("/api/v1/monitors/").status_code == 200
    ada().delete()
    assert with_key(shown).get("/api/v1/monitors/").status_code == 200
    assert client_of(alice()).get(KEYS).json()["results"][0]["created_by"] is None


def test_notes_its_use_once_a_minute(django_assert_num_queries):
    key, shown = made()
    for at, noted in (
        (NOW, NOW),
        (NOW + USE_NOTED_EVERY / 2, NOW),
        (NOW + USE_NOTED_EVERY, NOW + USE_NOTED_EVERY),
    ):
        with django_assert_num_queries(2 if at == noted else 1):
            found = standing_key(shown, at)
            note_use(found, at)
        key.refresh_from_db()
        assert key.last_used_at == noted


def test_of_two_that_note_a_use_at_once_one_writes():
    key, shown = made()
    one, other = standing_key(shown, NOW), standing_key(shown, NOW)
    note_use(one, NOW)
    note_use(other, NOW + timedelta(seconds=1))
    key.refresh_from_db()
    assert key.last_used_at == NOW


# --- scopes -------------------------------------------------------------------------------------------------------

# What a scope lets a key do, where the view takes this role and the action is called like this.
ALLOWED = [
    # action         takes           safe   read   incidents  write
    ("list",         Role.VIEWER,    True,  True,  True,      True),
    ("list",         Role.RESPONDER, True,  False, True,      True),
    ("list",         Role.ADMIN,     True,  False, False,     True),
    ("list",         Role.OWNER,     True,  False, False,     False),
    ("create",       Role.ADMIN,     False, False, False,     True),
    ("check",        Role.RESPONDER, False, False, False,     True),
    ("post",         Role.VIEWER,    False, False, False,     True),
    ("acknowledge",  Role.RESPONDER, False, False, True,      True),
    ("acknowledge",  Role.ADMIN,     False, False, False,     True),
    ("replay_all",   Role.RESPONDER, False, False, True,      True),
    ("destroy",      Role.OWNER,     False, False, False,     False),
]  # fmt: skip


@pytest.mark.parametrize(("action", "minimum", "safe", "read", "incidents", "write"), ALLOWED)
def test_a_scope_comes_to_a_role(action, minimum, safe, read, incidents, write):
    allowed = [scopes_allow([scope], action, minimum, safe) for scope in ("read", "incidents", "write")]
    assert allowed == [read, incidents, write]
    assert scopes_allow(["read", "incidents", "write"], action, minimum, safe) == any(allowed)


@pytest.fixture
def shop():
    """A monitor that is down, with a delivery that is dead."""
    subscribed(webhook(acme()), scope="all")
    shop = monitor(acme(), failures_to_open=1)
    recording.record([outcome(shop, "dns", total_ms=None, status_code=None)], after(2))
    Delivery.objects.update(status="dead")
    return shop


# read, incidents, write: the statuses of the answers
DEEDS = [
    ("get",    "monitors/",                      None,                      (200, 200, 200)),
    ("get",    "regions/",                       None,                      (200, 200, 200)),
    ("get",    "incidents/{incident}/timeline/", None,                      (200, 200, 200)),
    ("post",   "incidents/{incident}/comment/",  {"text": "x"},             (403, 201, 201)),
    ("post",   "incidents/{incident}/acknowledge/", None,                   (403, 200, 200)),
    ("post",   "incidents/{incident}/resolve/",  None,                      (403, 200, 200)),
    ("post",   "deliveries/{delivery}/replay/",  None,                      (403, 200, 200)),
    ("post",   "deliveries/replay/",             None,                      (403, 200, 200)),
    ("post",   "monitors/{monitor}/check/",      None,                      (403, 403, 202)),
    ("post",   "monitors/{monitor}/pause/",      None,                      (403, 403, 200)),
    ("post",   "monitors/bulk/",                 {"create": [], "update": [], "delete": []}, (403, 403, 200)),
    ("patch",  "monitors/{monitor}/",            {"name": "x"},             (403, 403, 200)),
    ("delete", "monitors/{monitor}/",            None,                      (403, 403, 204)),
    ("get",    "me/",                            None,                      (403, 403, 403)),
    ("post",   "me/password/",                   {"old": "x", "new": "y"},  (403, 403, 403)),
    ("post",   "auth/logout-everywhere/",        None,                      (403, 403, 403)),
    ("get",    "teams/",                         None,                      (403, 403, 403)),
    ("get",    "teams/{team}/",                  None,                      (403, 403, 403)),
    ("patch",  "teams/{team}/",                  {"name": "x"},             (403, 403, 403)),
    ("get",    "teams/{team}/members/",          None,                      (403, 403, 403)),
    ("patch",  "teams/{team}/members/{alice}/",  {"role": "viewer"},        (403, 403, 403)),
    ("delete", "teams/{team}/members/{alice}/",  None,                      (403, 403, 403)),
    ("get",    "teams/{team}/invitations/",      None,                      (403, 403, 403)),
    ("post",   "teams/{team}/invitations/",      {"email": "x@example.com", "role": "viewer"}, (403, 403, 403)),
    ("post",   "invitations/accept/",            {"token": "x"},            (403, 403, 403)),
    ("get",    "api-keys/",                      None,                      (403, 403, 403)),
    ("options", "api-keys/",                     None,                      (403, 403, 403)),
    ("post",   "api-keys/",                      {"name": "x", "scopes": ["read"]}, (403, 403, 403)),
    ("delete", "api-keys/{key}/",                None,                      (403, 403, 403)),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "path", "body", "expected"), DEEDS, ids=[f"{d[0]} {d[1]}" for d in DEEDS])
@pytest.mark.parametrize("scope", ["read", "incidents", "write"])
def test_lets_a_key_do_what_its_scope_says(shop, scope, verb, path, body, expected):
    things = {
        "monitor": shop.pk, "incident": Incident.objects.get().pk, "delivery": Delivery.objects.get().pk,
        "team": acme().pk, "alice": alice().pk, "key": made()[0].pk,
    }  # fmt: skip
    answer = getattr(key_client(scope), verb)(f"/api/v1/{path.format(**things)}", body)
    assert answer.status_code == expected[["read", "incidents", "write"].index(scope)], answer.content


@pytest.mark.parametrize("scopes", [["read"], ["incidents"], ["write"], ["read", "write", "incidents"]])
def test_no_address_breaks_for_a_key(shop, scopes):
    """What views ask of the person who sent it, where no person did."""
    client = key_client(*scopes)
    for url in API:
        for verb in ("get", "head", "options", "post", "put", "patch", "delete"):
            answer = getattr(client, verb)(url, {} if verb in ("post", "put", "patch") else None)
            assert answer.status_code < 500, (verb, url)


def test_knows_every_action_that_is_about_incidents():
    from incidents.views import IncidentViewSet
    from notifications.views import DeliveryViewSet

    assert set(IncidentViewSet.minimum_role) | set(DeliveryViewSet.minimum_role) == OF_INCIDENTS


def test_signs_what_a_key_does_to_an_incident(shop):
    incident = Incident.objects.get()
    client = key_client("incidents")
    client.post(f"/api/v1/incidents/{incident.pk}/acknowledge/")
    client.post(f"/api/v1/incidents/{incident.pk}/comment/", {"text": "Rolled back."})
    client.post(f"/api/v1/incidents/{incident.pk}/resolve/")
    events = IncidentEvent.objects.exclude(kind="opened").order_by("id")
    assert [(event.by, event.text) for event in events] == [
        (None, "by API key deploy"),
        (None, "Rolled back.\n— API key deploy"),
        (None, "by API key deploy"),
    ]


def test_nobody_gets_in_by_saying_nothing():
    assert anonymous().get(KEYS).status_code == 401


# --- in the console -------------------------------------------------------------------------------------------------


def console(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def test_the_console_shows_keys_and_revokes_them():
    key, shown = made()
    client, url = console(ada()), "/admin/accounts/apikey/"
    for page in (url, f"{url}{key.pk}/change/"):
        text = client.get(page).content.decode()
        assert key.prefix in text
        assert key.secret_hash not in text
        assert shown not in text
    assert client.get(f"{url}add/").status_code == 403
    assert client.post(f"{url}{key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"{url}{key.pk}/change/", {"name": "x"}).status_code == 403
    client.get(f"{url}{key.pk}/revoke/")
    assert with_key(shown).get("/api/v1/monitors/").status_code == 200
    done = client.post(f"{url}{key.pk}/revoke/", {"_form_submitted": "True"})
    assert done["HX-Redirect"] == f"{url}{key.pk}/change/"
    assert with_key(shown).get("/api/v1/monitors/").status_code == 401


def test_the_console_hides_keys_from_who_may_not_see_them():
    key, shown = made()
    url = "/admin/accounts/apikey/"
    assert console(bob()).get(url).status_code == 403
    member("charlie", Role.VIEWER, acme())  # an owner elsewhere
    client = console(charlie())
    assert key.prefix not in client.get(url).content.decode()
    for tail in ("change/", "revoke/"):
        assert client.get(f"{url}{key.pk}/{tail}").status_code in (302, 403, 404)
    client.post(f"{url}{key.pk}/revoke/", {"_form_submitted": "True"})
    client.post(url, {"action": "revoke_selected", "_selected_action": [key.pk], "index": 0})
    assert with_key(shown).get("/api/v1/monitors/").status_code == 200
