"""The audit: who changed what, whichever way they went about it."""

import json
import threading
from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import pruning, tokens
from accounts.models import ApiKey, AuditEntry, Invitation, Membership, Role, Scope, User
from healthmon.lib import audit
from healthmon.lib.audit import audited_models, watched
from monitors import recording, services
from monitors.models import Monitor, Region
from monitors.tasks import keep_partitions
from notifications import services as notifications
from notifications.models import Channel, MessageTemplate, Subscription
from tests.support.people import acme, ada, alice, anonymous, bob, charlie, client_of, globex, vera
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db

CANARY = "canary-7c1f"
URL = "/api/v1/audit/"


def entries(**which) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(**which).order_by("id"))


def newest(**which) -> AuditEntry:
    return AuditEntry.objects.filter(**which).latest("id")


def run(sql: str, parameters: list | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def as_(name: str):
    return audit.acting(lambda: audit.system(name))


# --- what is caught ---------------------------------------------------------------------------------------


def test_tells_what_was_changed_from_what_to_what_by_whom():
    shop = monitor(acme(), name="Shop")
    answer = client_of(ada()).patch(
        f"/api/v1/monitors/{shop.id}/", {"name": "Store", "tags": ["prod"]}, HTTP_X_REQUEST_ID="r-1"
    )
    assert answer.status_code == 200
    entry = newest()
    assert (entry.kind, entry.object_id, entry.operation, entry.name) == (
        "monitor",
        shop.id,
        "changed",
        "Store",
    )
    assert (entry.actor_kind, entry.actor, entry.user_id) == ("person", "ada@example.com", ada().id)
    assert entry.team_id == acme().id
    assert entry.changes == {
        "name": {"before": "Shop", "after": "Store"},
        "tags": {"before": [], "after": ["prod"]},
    }


def test_knows_the_request():
    shop = monitor(acme())
    answer = client_of(ada()).delete(f"/api/v1/monitors/{shop.id}/", HTTP_X_REQUEST_ID="order-66")
    assert answer.status_code == 204
    assert newest(kind="monitor").request_id == "order-66"


@pytest.mark.parametrize(
    "change",
    [
        lambda: Monitor.objects.update(interval_seconds=60),
        lambda: Monitor.objects.bulk_update(
            [Monitor(pk=each.pk, interval_seconds=60) for each in Monitor.objects.all()], ["interval_seconds"]
        ),
        lambda: run("UPDATE monitors_monitor SET interval_seconds = 60"),
        lambda: run("UPDATE monitors_monitor SET interval_seconds = %s WHERE id > %s", [60, 0]),
        lambda: run("WITH two AS (SELECT 60 AS s) UPDATE monitors_monitor SET interval_seconds = s FROM two"),
        lambda: run("UPDATE monitors_monitor SET interval_seconds = 60, name = '100 % %s' WHERE true"),
    ],
    ids=[
        "update",
        "bulk_update",
        "sql",
        "sql with parameters",
        "sql that begins with WITH",
        "sql with signs",
    ],
)
def test_catches_changes_of_many_rows(change):
    made = [monitor(acme(), name=f"Shop {n}") for n in range(3)]
    with as_("test's 100 % \\ ü"):
        change()
    caught = entries(kind="monitor", operation="changed")
    assert [entry.object_id for entry in caught] == [each.id for each in made]
    assert {entry.actor for entry in caught} == {"system: test's 100 % \\ ü"}
    assert all(entry.changes["interval_seconds"] == {"before": 30, "after": 60} for entry in caught)


def test_catches_what_is_deleted_along_with_something_else():
    channel = subscribed(webhook(acme()), scope="all")
    shop = monitor(acme())
    Subscription.objects.create(channel=channel, scope="monitor", monitor=shop)
    MessageTemplate.objects.create(team=acme(), kind="opened", subject="Down")
    team = acme().id
    alice()
    with as_("test"):
        acme().delete()
    gone = [(entry.kind, entry.team_id) for entry in entries(operation="deleted")]
    assert sorted(gone) == [
        (kind, team)
        for kind in (
            "channel", "membership", "message_template", "monitor", "subscription", "subscription", "team"
        )
    ]  # fmt: skip


def test_catches_every_audited_table():
    with as_("test"):
        monitor(acme())
        subscribed(webhook(acme()), scope="all")
        MessageTemplate.objects.create(team=acme(), kind="opened", subject="Down")
        Region.objects.create(slug="r1", name="Region")
        alice()
        later = timezone.now() + timedelta(days=1)
        Invitation.objects.create(
            team=acme(), email="x@example.com", role=Role.VIEWER, token_hash="t", expires_at=later
        )
        ApiKey.objects.create(team=acme(), name="deploy", prefix="p" * 10, secret_hash="s", scopes=["read"])
    assert {entry.kind for entry in entries(operation="created", actor_kind="system")} == {
        audited.kind for _, audited in audited_models()
    }


def test_does_not_tell_what_was_rolled_back():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        monitor(acme())
        raise ZeroDivisionError
    assert not entries(kind="monitor")


def test_has_a_trigger_for_every_column_that_people_change():
    """A field that was added to a model is audited after the next migration, or is named as a machine's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT event_object_table::text, event_object_column::text"
            "  FROM information_schema.triggered_update_columns WHERE trigger_name = 'audit_change'"
        )
        there = set(cursor.fetchall())
    wanted = {
        (model._meta.db_table, column)
        for model, audited in audited_models()
        for column in watched(model, audited)
    }
    assert there == wanted
    for model, audited in audited_models():
        assert audited.machine <= {field.column for field in model._meta.concrete_fields}, model


# --- what is not ------------------------------------------------------------------------------------------


def test_makes_no_entry_of_what_machines_write():
    shop = monitor(acme(), failures_to_open=1)
    channel = subscribed(webhook(acme()), scope="all")
    user = alice()
    before = AuditEntry.objects.count()
    recording.record([outcome(shop, "status", status_code=500)], after(2))
    recording.record([outcome(shop, at=after(30))], after(32))
    Monitor.objects.filter(pk=shop.pk).update(status="down", status_changed_at=NOON)
    Channel.objects.filter(pk=channel.pk).update(failures=3, failing_since=NOON, tokens=2)
    User.objects.filter(pk=user.pk).update(last_login=NOON)
    user.save(), shop.refresh_from_db(), shop.save()  # every column, none of another value
    assert AuditEntry.objects.count() == before


def test_a_status_that_moves_does_not_so_much_as_call_the_trigger():
    shop = monitor(acme())
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN (ANALYZE, COSTS OFF) UPDATE monitors_monitor SET status = 'down' WHERE id = %s",
            [shop.id],
        )
        without = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute(
            "EXPLAIN (ANALYZE, COSTS OFF) UPDATE monitors_monitor SET name = 'x' WHERE id = %s", [shop.id]
        )
        with_ = "\n".join(line for (line,) in cursor.fetchall())
    assert "audit_change" not in without
    assert "audit_change" in with_


# --- secrets ----------------------------------------------------------------------------------------------


def test_keeps_no_secret():
    """A canary in every secret column, made, changed and deleted, and the table searched for them all."""
    with as_("test"):
        user = alice()
        user.set_password(CANARY)
        user.save()
        user.set_password(f"{CANARY}-2")
        user.save()
        key = tokens.new_key()
        ApiKey.objects.create(
            team=acme(), name="deploy", prefix=key.prefix, secret_hash=key.kept, scopes=[Scope.READ]
        ).delete()
        later = timezone.now() + timedelta(days=1)
        Invitation.objects.create(
            team=acme(),
            email="x@example.com",
            role=Role.VIEWER,
            token_hash=tokens.digest(CANARY),
            expires_at=later,
        )
        shop = monitor(acme(), secret_headers={"Authorization": CANARY})
        services.update(shop, {"secret_headers": {"Authorization": f"{CANARY}-2"}}, NOON)
        channel, secrets = notifications.create_channel(
            acme(),
            "Hook",
            "webhook",
            {"url": "https://hooks.example.com/", "secret": "whsec_" + "QUJD" * 10},
            True,
            NOON,
        )
        notifications.update_channel(
            channel, {"config": {"url": "https://hooks.example.com/", "secret": "whsec_" + "REVG" * 10}}, NOON
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(string_agg(to_jsonb(e)::text, ' '), '') FROM accounts_auditentry e")
        [table] = cursor.fetchone()
    shop.refresh_from_db(), channel.refresh_from_db(), user.refresh_from_db()
    for secret in (
        CANARY, user.password, "argon2", key.shown, key.kept, tokens.digest(CANARY), shop.sealed_headers,
        channel.sealed_secrets, *secrets.values(), "QUJDQUJD", "REVGREVG",
    ):  # fmt: skip
        assert secret
        assert secret not in table, secret
    for kind, column in (
        ("user", "password"), ("monitor", "sealed_headers"), ("channel", "sealed_secrets"),
    ):  # fmt: skip
        assert newest(kind=kind, operation="changed").changes[column] == "changed"
    assert newest(kind="api_key", operation="created").changes["secret_hash"] == "changed"


def test_takes_columns_for_secret_by_their_names():
    for model, audited in audited_models():
        for column in watched(model, audited):
            hidden = bool(audit.SECRET.search(column))
            assert hidden == (
                column.startswith("sealed_") or column in {"password", "secret_hash", "token_hash"}
            )


# --- by whom ----------------------------------------------------------------------------------------------


def test_names_a_key_and_the_request_it_came_with():
    key = tokens.new_key()
    made = ApiKey.objects.create(
        team=acme(), name="deploy", prefix=key.prefix, secret_hash=key.kept, scopes=[Scope.WRITE]
    )
    shop = monitor(acme())
    answer = anonymous().patch(
        f"/api/v1/monitors/{shop.id}/", {"name": "Store"}, HTTP_AUTHORIZATION=f"Api-Key {key.shown}"
    )
    assert answer.status_code == 200, answer.content
    entry = newest()
    assert (entry.actor_kind, entry.actor, entry.api_key_id, entry.user_id) == (
        "key",
        "key: deploy",
        made.id,
        None,
    )


def test_names_who_is_at_the_console():
    user = alice()
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    region = Region.objects.get(slug="default")
    answer = client.post(f"/admin/monitors/region/{region.pk}/change/", {"name": "Berlin", "enabled": "on"})
    assert answer.status_code == 302
    assert (newest().kind, newest().actor) == ("region", "alice@example.com")


def test_names_commands_tasks_and_sql_by_hand():
    Region.objects.filter(slug="default").update(name="A")
    assert (newest().actor_kind, newest().actor) == ("database", "database: postgres")

    from healthmon.celery import app

    @app.task(name="tests.rename")
    def rename(**_future):
        Region.objects.filter(slug="default").update(name="B")

    rename()
    assert (newest().actor_kind, newest().actor) == ("system", "system: tests.rename")
    del app.tasks["tests.rename"]
    assert keep_partitions.__class__.__call__ is rename.__class__.__call__


def test_gives_what_is_nested_to_the_innermost_and_then_back():
    with as_("outer"):
        with as_("inner"):
            Region.objects.filter(slug="default").update(name="A")
        Region.objects.filter(slug="default").update(name="B")
    assert [entry.actor for entry in entries(kind="region")][-2:] == ["system: inner", "system: outer"]


def test_survives_what_a_name_may_hold():
    for name in ("\0", "\ud800", "'; DROP TABLE accounts_user; --", "%s %(x)s %", "x" * 1_000, "\\'", "$$"):
        with as_(name):
            Region.objects.filter(slug="default").update(name=str(hash(name)))
            User.objects.filter(pk=0).update(name="nobody's")
        assert newest().actor.startswith("system: ")


def test_costs_no_statement_of_its_own():
    """It travels with the statement that writes; what reads, and what writes elsewhere, is sent as it is."""
    shop = monitor(acme())
    with CaptureQueriesContext(connection) as without:
        Monitor.objects.filter(pk=shop.pk).update(name="A")
    with as_("test"), CaptureQueriesContext(connection) as caught:
        assert Monitor.objects.filter(pk=shop.pk).update(name="B") == 1
        made = Region.objects.create(slug="r1", name="R")
        assert made.pk
        list(Monitor.objects.select_for_update()), Membership.objects.count()
        shop.states.update(failures=1)
    assert len(without) == 1
    told = ["set_config" in query["sql"] for query in caught]
    assert told == [True, True, False, False, False]


@pytest.mark.parametrize("rows", [10, 1_000])
def test_costs_as_many_statements_for_a_thousand_monitors_as_for_ten(rows):
    columns = [{"name": f"Shop {n}", "url": "https://example.com/"} for n in range(rows)]
    acme()
    with as_("test"), CaptureQueriesContext(connection) as caught:
        services.create(acme(), columns, NOON)
    assert len(caught) <= 10
    assert len(entries(kind="monitor", operation="created")) == rows


@pytest.mark.django_db(transaction=True)
def test_keeps_two_threads_apart_and_leaves_nothing_on_a_connection():
    regions = [Region.objects.create(slug=f"r{n}", name="R") for n in range(2)]
    both = threading.Barrier(2, timeout=20)
    failed = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                with as_(f"thread {number} turn {turn}"), transaction.atomic():
                    both.wait()
                    Region.objects.filter(pk=regions[number].pk).update(name=f"{turn}")
                    both.wait()
                with connection.cursor() as cursor:  # the same connection, somebody else's turn
                    cursor.execute("SELECT coalesce(current_setting('healthmon.actor', true), '')")
                    assert cursor.fetchone() == ("",)
                Region.objects.filter(pk=regions[number].pk).update(name=f"{turn} by nobody")
        except BaseException as problem:
            failed.append(problem)
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
    [thread.start() for thread in threads], [thread.join(60) for thread in threads]
    assert not failed
    for number, region in enumerate(regions):
        told = [entry.actor for entry in entries(kind="region", object_id=region.pk, operation="changed")]
        assert told == [
            who
            for turn in range(20)
            for who in (f"system: thread {number} turn {turn}", "database: postgres")
        ]


@pytest.mark.django_db(transaction=True)
def test_one_request_leaves_nothing_to_the_next():
    shop = monitor(acme())
    for person in (alice(), ada(), alice()):
        answer = client_of(person).patch(
            f"/api/v1/monitors/{shop.id}/", {"name": f"By {person.id} {timezone.now()}"}
        )
        assert answer.status_code == 200
        assert newest().actor == person.email
        Region.objects.filter(slug="default").update(name=f"after {person.id} {timezone.now()}")
        assert newest().actor_kind == "database"


# --- it stays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE accounts_auditentry SET actor = 'somebody else'",
        "DELETE FROM accounts_auditentry",
        "UPDATE accounts_auditentry SET at = at - interval '2 years'",
    ],
)
def test_refuses_to_be_changed(tampering):
    monitor(acme())
    with pytest.raises(DatabaseError, match="kept for 365 days"), transaction.atomic():
        run(tampering)
    assert entries(kind="monitor")


def test_is_kept_for_a_year():
    now = timezone.now()
    monitor(acme())
    kept = AuditEntry.objects.count()
    for days in (300, 364, 367, 800):
        AuditEntry.objects.create(
            at=now - timedelta(days=days), actor_kind="system", actor="x", request_id="", kind="monitor", object_id=1,
            name="", operation="changed", changes={},
        )  # fmt: skip
    assert pruning.audit(now) == 2
    assert AuditEntry.objects.count() == kept + 2
    assert pruning.audit(now) == 0


# --- who may read it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "status"), [(vera, 403), (bob, 403), (ada, 200), (alice, 200), (charlie, 200)]
)
def test_is_read_by_admins_of_the_team(person, status):
    monitor(acme(), name="Ours")
    monitor(globex(), name="Theirs")
    answer = client_of(person()).get(URL)
    assert answer.status_code == status
    if status == 200:
        names = {entry["name"] for entry in answer.json()["results"] if entry["kind"] == "monitor"}
        assert names == ({"Theirs"} if person is charlie else {"Ours"})


def test_nobody_writes_it():
    for verb in ("post", "put", "patch", "delete"):
        assert getattr(client_of(alice()), verb)(URL, {}).status_code == 405


def test_is_filtered_and_paged():
    shop, store = monitor(acme(), name="Shop"), monitor(acme(), name="Store")
    client = client_of(ada())
    client.patch(f"/api/v1/monitors/{shop.id}/", {"name": "New shop"})
    with as_("test"):  # a test is one transaction, and the actor stays until another comes
        webhook(acme())
    middle = newest(object_id=shop.id, kind="monitor").at.isoformat().replace("+00:00", "Z")

    def found(query: str) -> list[tuple[str, str]]:
        answer = client.get(f"{URL}?{query}")
        assert answer.status_code == 200, answer.content
        return [(entry["kind"], entry["operation"]) for entry in answer.json()["results"]]

    assert found(f"object={shop.id}&kind=monitor") == [("monitor", "changed"), ("monitor", "created")]
    assert found(f"object={store.id}&kind=monitor") == [("monitor", "created")]
    assert found("actor=ADA@example.com") == [("monitor", "changed")]
    assert found("kind=channel&kind=region") == [("channel", "created")]
    assert found(f"since={middle}")[-1] == ("monitor", "changed")
    assert ("channel", "created") not in found(f"until={middle}")
    assert len(found("limit=1")) == 1
    for wrong in ("object=x", "kind=results", "since=yesterday", "until=", "kind=", "nobody=1"):
        assert client.get(f"{URL}?{wrong}").status_code == 400, wrong
    [entry] = client.get(f"{URL}?limit=1&actor=ada@example.com").json()["results"]
    assert json.loads(json.dumps(entry["changes"])) == {"name": {"before": "Shop", "after": "New shop"}}


def test_is_shown_whole_to_superusers_in_the_console_and_changed_by_none():
    monitor(acme()), monitor(globex())
    user = alice()
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    page = client.get("/admin/accounts/auditentry/?kind=monitor").content.decode()
    assert page.count("/admin/accounts/auditentry/") >= 2
    one = newest()
    assert client.get(f"/admin/accounts/auditentry/{one.pk}/change/").status_code == 200
    for address in ("add/", f"{one.pk}/delete/"):
        assert client.get(f"/admin/accounts/auditentry/{address}").status_code == 403
    assert AuditEntry in admin.site._registry
