"""Channels, subscriptions and deliveries over HTTP."""

import base64
import json

import pytest
from django.db import connection

from incidents import services as incidents
from incidents.models import Incident
from monitors import services as monitors
from notifications import outbox
from notifications import services as notifications
from notifications.models import Channel, Delivery, MessageTemplate, Subscription
from notifications.transports import TRANSPORTS
from tests.incidents.test_services import change
from tests.support.people import acme, ada, alice, bob, charlie, client_of, globex, vera
from tests.support.watching import NOON, after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db

CHANNELS, SUBSCRIPTIONS, DELIVERIES = "/api/v1/channels/", "/api/v1/subscriptions/", "/api/v1/deliveries/"
TEMPLATES = "/api/v1/message-templates/"
HOOK = {"name": "Hook", "kind": "webhook", "config": {"url": "https://hooks.example.com/1"}}
MAIL = {"name": "Mail", "kind": "email", "config": {"to": ["ops@example.com", "cto@example.com"]}}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def client():
    return client_of(ada())


@pytest.fixture
def hook() -> Channel:
    return webhook(acme())


def pointers(answer) -> list[str]:
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json"), answer.content
    return [error["pointer"] for error in answer.json()["errors"]]


def secret_of(channel_id: int) -> str:
    return outbox.secrets_of(Channel.objects.get(pk=channel_id))["secret"]


def all_columns() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT c::text FROM notifications_channel c")
        return str(cursor.fetchall())


# --- channels ---------------------------------------------------------------------------------------------


def test_makes_a_webhook_and_shows_its_secret_once(client):
    answer = client.post(CHANNELS, HOOK)
    assert answer.status_code == 201, answer.content
    made = answer.json()
    secret = made["config"]["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert {name: made[name] for name in ("name", "kind", "enabled", "disabled_reason")} == {
        "name": "Hook", "kind": "webhook", "enabled": True, "disabled_reason": ""
    }  # fmt: skip
    assert secret_of(made["id"]) == secret
    masked = made | {"config": HOOK["config"] | {"secret": f"***{secret[-4:]}"}}
    assert client.get(f"{CHANNELS}{made['id']}/").json() == masked
    assert client.get(CHANNELS).json() == {"next": None, "previous": None, "results": [masked]}
    assert secret not in all_columns()


def test_keeps_a_secret_that_is_given(client):
    made = client.post(CHANNELS, HOOK | {"config": HOOK["config"] | {"secret": SECRET}}).json()
    assert made["config"]["secret"] == SECRET == secret_of(made["id"])


def test_changes_a_channel_and_keeps_its_secret_unless_it_gets_another(client, hook):
    where, secret = f"{CHANNELS}{hook.id}/", secret_of(hook.id)
    masked = f"***{secret[-4:]}"
    steps = [
        # sent                                                      its secret then
        ({"name": "Renamed"},                                       secret),
        ({"config": {"url": "https://hooks.example.com/2"}},        secret),
        ({"config": client.get(where).json()["config"]},            secret),
        ({"config": HOOK["config"] | {"secret": ""}},               secret),
        ({"enabled": False},                                        secret),
        ({"config": HOOK["config"] | {"secret": SECRET}},           SECRET),
    ]  # fmt: skip
    for sent, then in steps:
        answer = client.patch(where, sent)
        assert answer.status_code == 200, answer.content
        assert secret_of(hook.id) == then
        assert answer.json()["config"]["secret"] == (masked if then == secret else f"***{SECRET[-4:]}")
    assert (answer.json()["name"], answer.json()["enabled"]) == ("Renamed", False)
    shown = client.get(where).json()
    assert client.put(where, shown).json() | {"updated_at": None} == shown | {"updated_at": None}


def test_enabling_forgets_why_it_was_disabled(client, hook):
    Channel.objects.filter(pk=hook.pk).update(enabled=False, disabled_reason="It answered 410.")
    where = f"{CHANNELS}{hook.id}/"
    assert client.patch(where, {"name": "x"}).json()["disabled_reason"] == "It answered 410."
    assert client.patch(where, {"enabled": True}).json()["disabled_reason"] == ""


def test_a_channel_that_is_enabled_again_hears_of_what_is_open(client, hook):
    subscribed(hook, scope="all")
    where = f"{CHANNELS}{hook.id}/"
    client.patch(where, {"enabled": False})
    incidents.apply([change(monitor(acme()), "down")], NOON)
    assert [each.status for each in hook.deliveries.all()] == ["muted"]
    client.patch(where, {"name": "Still off"})
    assert [each.status for each in hook.deliveries.all()] == ["muted"]
    client.patch(where, {"enabled": True})
    assert [each.status for each in hook.deliveries.all()] == ["pending"]


def test_a_channel_has_the_habits_of_its_kind_unless_others_are_given(client):
    for sent, habits in [
        (HOOK, (0, None, None)),
        (HOOK | {"rate_per_minute": 6}, (0, 6, None)),
        (MAIL, (3, TRANSPORTS["email"].rate_per_minute, None)),
        (MAIL | {"gather_seconds": 0, "rate_per_minute": None, "reminder_minutes": 30}, (0, None, 30)),
    ]:
        made = client.post(CHANNELS, sent).json()
        assert (made["gather_seconds"], made["rate_per_minute"], made["reminder_minutes"]) == habits
    where = f"{CHANNELS}{made['id']}/"
    changed = client.patch(
        where, {"gather_seconds": 5, "rate_per_minute": None, "reminder_minutes": 1}
    ).json()
    assert (changed["gather_seconds"], changed["rate_per_minute"], changed["reminder_minutes"]) == (
        5,
        None,
        1,
    )


def test_knows_where_a_channel_leads(client, hook):
    made = client.post(CHANNELS, HOOK).json()
    assert Channel.objects.get(pk=made["id"]).destination == "hooks.example.com:443"
    client.patch(f"{CHANNELS}{made['id']}/", {"config": {"url": "https://other.example.com:8443/"}})
    assert Channel.objects.get(pk=made["id"]).destination == "other.example.com:8443"
    client.patch(f"{CHANNELS}{made['id']}/", {"name": "Renamed"})
    assert Channel.objects.get(pk=made["id"]).destination == "other.example.com:8443"
    assert hook.destination == "127.0.0.1:9"


def test_shows_how_a_channel_is_doing_and_lets_nobody_write_it(client, hook):
    where = f"{CHANNELS}{hook.id}/"
    Channel.objects.filter(pk=hook.pk).update(last_success_at=NOON, failing_since=after(60), failures=3)
    shown = client.get(where).json()
    assert (shown["failures"], shown["for_owners"]) == (3, False)
    assert [shown[name] for name in ("last_success_at", "failing_since")] == [
        moment.isoformat().replace("+00:00", "Z") for moment in (NOON, after(60))
    ]
    claimed = {"failures": 0, "failing_since": None, "for_owners": True}
    assert client.patch(where, claimed | {"name": "Well"}).json()["failures"] == 3
    assert not Channel.objects.get(pk=hook.pk).for_owners


def test_null_takes_away_a_secret_that_is_not_needed(client):
    sent = {"name": "N", "kind": "ntfy", "config": {"topic": "ops-alerts", "token": "tk_" + "a" * 29}}
    made = client.post(CHANNELS, sent)
    assert made.status_code == 201, made.content
    where = f"{CHANNELS}{made.json()['id']}/"
    kept = client.patch(where, {"config": {"topic": "ops-alerts"}}).json()["config"]
    assert kept["token"] == "***aaaa"
    dropped = client.patch(where, {"config": {"topic": "ops-alerts", "token": None}}).json()["config"]
    assert "token" not in dropped


def test_the_last_resort_can_be_disabled_but_neither_led_elsewhere_nor_deleted(client):
    channel, _ = notifications.create_channel(
        acme(), "The team's owners", "email", MAIL["config"], True, NOON
    )
    Channel.objects.filter(pk=channel.pk).update(for_owners=True)
    where = f"{CHANNELS}{channel.id}/"
    assert client.get(where).json()["for_owners"]
    before = Channel.objects.values().get()
    elsewhere = {"config": {"to": ["me@example.com"]}}
    for answer in (client.patch(where, elsewhere), client.put(where, MAIL | elsewhere), client.delete(where)):
        assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    assert pointers(client.patch(where, {"kind": "webhook"})) == ["#/kind"]
    assert Channel.objects.values().get() == before
    shown = client.get(where).json()
    assert client.put(where, shown | {"enabled": False}).status_code == 200
    assert Channel.objects.get().config == MAIL["config"]


def test_makes_a_mail_channel(client):
    made = client.post(CHANNELS, MAIL).json()
    assert made["config"] == MAIL["config"]
    assert client.get(f"{CHANNELS}{made['id']}/").json() == made


@pytest.fixture
def closed(settings):
    settings.HEALTHMON_ALLOWED_NETS = ()


BAD = [
    # kind      field              is not
    ("webhook", "name",            ["", None, 5, True, "x" * 201, "two\nlines"]),
    ("webhook", "kind",            ["", "sms", None, 1, []]),
    ("webhook", "enabled",         ["yes", 1, None]),
    ("webhook", "gather_seconds",  [-1, 1, 301, "3", None, True, 1.5]),
    ("webhook", "rate_per_minute", [0, -1, "1", True]),
    ("webhook", "reminder_minutes", [0, 10_081, "1", True]),
    ("webhook", "team",            [1]),
    ("webhook", "disabled_reasons", ["x"]),
    ("webhook", "config",          [None, [], "https://example.com", 5]),
    ("webhook", "config/url",      [None, "", 5, [], "example.com", "ftp://example.com/", "https://a:b@example.com/",
                                    "https://example.com/\n", "http://localhost/", "http://127.1/", "http://10.0.0.1/",
                                    "http://169.254.169.254/", "http://[::1]/", "https://e.com/" + "x" * 3000]),
    ("webhook", "config/secret",   ["hush", "whsec_", "whsec_!!!!", "whsec_" + "YQ==" , 5, ["x"], "***abcd"]),
    ("webhook", "config/headers",  [{"X": "y"}]),
    ("email",   "config/to",       [None, [], "ops@example.com", {}, [""], ["ops"], ["ops@example.com\nBcc: x@y.com"],
                                    ["Ops <ops@example.com>"], ["a@example.com", "b"], [5], [None], [["@"]], [{}],
                                    [f"a{n}@example.com" for n in range(51)]]),
    ("email",   "config/url",      ["https://example.com/"]),
]  # fmt: skip


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("row", BAD, ids=lambda row: f"{row[0]} {row[1]}")
def test_names_what_is_wrong_and_stores_nothing(client, row):
    kind, path, values = row
    good = HOOK if kind == "webhook" else MAIL
    made = client.post(CHANNELS, good).json()
    before = list(Channel.objects.values())
    for value in values:
        field, _, inner = path.partition("/")
        sent = {field: good["config"] | {inner: value} if inner else value}
        assert f"#/{path}" in pointers(client.post(CHANNELS, good | sent)), value
        if value != "***abcd":  # which keeps the secret there is
            assert f"#/{path}" in pointers(client.patch(f"{CHANNELS}{made['id']}/", sent)), value
    assert list(Channel.objects.values()) == before


def test_a_channel_keeps_its_kind(client, hook):
    assert pointers(client.patch(f"{CHANNELS}{hook.id}/", MAIL)) == ["#/kind"]


@pytest.mark.parametrize("missing", ["name", "kind", "config"])
def test_needs_what_it_needs(client, missing):
    assert pointers(client.post(CHANNELS, {k: v for k, v in HOOK.items() if k != missing})) == [
        f"#/{missing}"
    ]


def test_a_test_is_a_delivery_to_watch(client, hook):
    answer = client.post(f"{CHANNELS}{hook.id}/test/")
    assert answer.status_code == 202
    delivery = answer.json()
    assert (delivery["kind"], delivery["status"], delivery["channel"], delivery["incident"]) == (
        "test", "pending", hook.id, None,
    )  # fmt: skip
    assert client.get(f"{DELIVERIES}{delivery['id']}/").json() == delivery | {"tries": []}


def test_deleting_a_channel_takes_its_subscriptions_and_deliveries(client, hook):
    subscribed(hook, scope="all")
    client.post(f"{CHANNELS}{hook.id}/test/")
    assert client.delete(f"{CHANNELS}{hook.id}/").status_code == 204
    assert not Subscription.objects.exists()
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("rows", [2, 12])
def test_lists_channels_at_one_price(client, rows, django_assert_num_queries):
    for _ in range(rows):
        webhook(acme())
    with django_assert_num_queries(3):
        assert len(client.get(CHANNELS).json()["results"]) == rows


# --- subscriptions ----------------------------------------------------------------------------------------


def test_subscribes_to_all_a_tag_or_a_monitor(client, hook):
    shop = monitor(acme())
    for sent, tag, of in [
        ({"channel": hook.id}, "", None),
        ({"channel": hook.id, "scope": "tag", "tag": "prod"}, "prod", None),
        ({"channel": hook.id, "scope": "tag", "tag": "eu"}, "eu", None),
        ({"channel": hook.id, "scope": "monitor", "monitor": shop.id}, "", shop.id),
    ]:
        answer = client.post(SUBSCRIPTIONS, sent)
        assert answer.status_code == 201, answer.content
        made = answer.json()
        assert (made["scope"], made["tag"], made["monitor"]) == (sent.get("scope", "all"), tag, of)
        assert client.get(f"{SUBSCRIPTIONS}{made['id']}/").json() == made
        assert pointers(client.post(SUBSCRIPTIONS, sent)) == ["#"], "it is there already"
        again = client.put(f"{SUBSCRIPTIONS}{made['id']}/", made).json()
        assert again == made | {"updated_at": again["updated_at"]}
    assert len(client.get(SUBSCRIPTIONS).json()["results"]) == 4
    monitors.delete([shop], None, after(1))
    assert Subscription.objects.count() == 3


LIMITS = {
    "kinds": ["opened", "resolved"], "min_severity": "warning", "days": [0, 1, 2], "from_time": "22:00:00",
    "until_time": "06:00:00", "time_zone": "Europe/Berlin",
}  # fmt: skip


def test_limits_of_what_how_bad_and_when(client, hook):
    made = client.post(SUBSCRIPTIONS, {"channel": hook.id} | LIMITS)
    assert made.status_code == 201, made.content
    shown = made.json()
    assert {name: shown[name] for name in LIMITS} == LIMITS
    where = f"{SUBSCRIPTIONS}{shown['id']}/"
    again = client.put(where, shown).json()
    assert again == shown | {"updated_at": again["updated_at"]}
    assert pointers(client.post(SUBSCRIPTIONS, {"channel": hook.id} | LIMITS)) == ["#"], "it is there already"
    for name, value in [
        ("kinds", []), ("min_severity", "critical"), ("days", [6]), ("until_time", "07:30:00"), ("time_zone", "UTC"),
    ]:  # fmt: skip
        assert client.post(SUBSCRIPTIONS, {"channel": hook.id} | LIMITS | {name: value}).status_code == 201
        assert client.patch(where, {name: value}).status_code == 400, "now the other one is like this"
    none = {"from_time": None, "until_time": None}
    assert client.patch(where, none).json()["from_time"] is None
    mixed = {
        "kinds": ["resolved", "opened", "resolved"],
        "days": [6, 0, 6],
        "from_time": "09:00",
        "until_time": "9:30",
    }
    shown = client.patch(where, mixed | {"time_zone": "UTC"}).json()
    assert (shown["kinds"], shown["days"]) == (["opened", "resolved"], [0, 6])
    assert (shown["from_time"], shown["until_time"]) == ("09:00:00", "09:30:00")


def test_hears_of_everything_at_any_hour_if_nothing_else_is_said(client, hook):
    made = client.post(SUBSCRIPTIONS, {"channel": hook.id}).json()
    assert {name: made[name] for name in LIMITS} == {
        "kinds": [], "min_severity": "info", "days": [], "from_time": None, "until_time": None, "time_zone": "UTC"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "named", "said"),
    [
        ({"kinds": ["opend"]}, "#/kinds", "There is no kind 'opend'; there are: opened, resolved,"),
        ({"kinds": ["test"]}, "#/kinds", "nobody subscribes to it"),
        ({"kinds": ["channel_failing"]}, "#/kinds", "nobody subscribes to it"),
        ({"kinds": "opened"}, "#/kinds", "Expected a list"),
        ({"kinds": [5]}, "#/kinds/0", "A text is needed."),
        ({"kinds": None}, "#/kinds", "null"),
        ({"min_severity": "dire"}, "#/min_severity", "dire"),
        ({"min_severity": None}, "#/min_severity", "null"),
        ({"days": [7]}, "#/days/0", "less than or equal to 6"),
        ({"days": [-1]}, "#/days/0", "greater than or equal to 0"),
        ({"days": ["Mon"]}, "#/days/0", "A number is needed."),
        ({"days": [True]}, "#/days/0", "A number is needed."),
        ({"days": 1}, "#/days", "Expected a list"),
        ({"from_time": "09:00"}, "#/until_time", "Where there is `from_time`, this is needed too"),
        ({"until_time": "09:00"}, "#/from_time", "leave out both for any hour"),
        ({"from_time": "25:00", "until_time": "09:00"}, "#/from_time", "wrong format"),
        ({"from_time": 9, "until_time": "09:00"}, "#/from_time", "wrong format"),
        ({"from_time": "09:00+02:00", "until_time": "10:00"}, "#/from_time", "without an offset"),
        ({"time_zone": "Berlin"}, "#/time_zone", "one such as Europe/Berlin is needed"),
        ({"time_zone": "CEST"}, "#/time_zone", "one such as Europe/Berlin is needed"),
        ({"time_zone": "Mars/Olympus"}, "#/time_zone", "There is no time zone 'Mars/Olympus'"),
        ({"time_zone": "../../etc/passwd"}, "#/time_zone", "There is no time zone"),
        ({"time_zone": "localtime"}, "#/time_zone", "There is no time zone"),
        ({"time_zone": ""}, "#/time_zone", "blank"),
        ({"time_zone": 1}, "#/time_zone", "A text is needed."),
    ],
)
def test_refuses_limits_it_cannot_keep(client, hook, sent, named, said):
    answer = client.post(SUBSCRIPTIONS, {"channel": hook.id} | sent)
    assert pointers(answer) == [named]
    assert said in answer.json()["errors"][0]["detail"]
    assert not Subscription.objects.exists()
    if set(sent) & {"from_time", "until_time"}:
        made = client.post(SUBSCRIPTIONS, {"channel": hook.id} | LIMITS).json()
        half = {next(iter(sent)): None}
        assert client.patch(f"{SUBSCRIPTIONS}{made['id']}/", half).status_code == 400


def test_a_new_subscription_is_told_of_what_is_open(client, hook):
    shop = monitor(acme(), tags=["prod"])
    incidents.apply([change(shop, "down")], NOON)
    made = client.post(SUBSCRIPTIONS, {"channel": hook.id, "scope": "tag", "tag": "eu"}).json()
    assert not Delivery.objects.exists()
    client.patch(f"{SUBSCRIPTIONS}{made['id']}/", {"tag": "prod"})
    assert [(each.kind, each.channel) for each in Delivery.objects.all()] == [("opened", hook)]


def test_changes_what_it_hears_of(client, hook):
    where = f"{SUBSCRIPTIONS}{subscribed(hook, scope='tag', tag='prod').subscriptions.get().id}/"
    shop = monitor(acme())
    assert client.patch(where, {"tag": "eu"}).json()["tag"] == "eu"
    assert client.patch(where, {"scope": "all"}).json()["tag"] == ""
    assert client.patch(where, {"scope": "monitor", "monitor": shop.id}).json()["monitor"] == shop.id
    assert pointers(client.patch(where, {"scope": "tag"})) == ["#/tag"]
    assert client.delete(where).status_code == 204


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({}, "#/channel"),
        ({"channel": "foreign"}, "#/channel"),
        ({"channel": 10**20}, "#/channel"),
        ({"channel": None}, "#/channel"),
        ({"channel": "x"}, "#/channel"),
        ({"channel": True}, "#/channel"),
        ({"channel": 1.5}, "#/channel"),
        ({"channel": [1]}, "#/channel"),
        ({"channel": "hook", "scope": "team"}, "#/scope"),
        ({"channel": "hook", "scope": None}, "#/scope"),
        ({"channel": "hook", "scope": "tag"}, "#/tag"),
        ({"channel": "hook", "scope": "tag", "tag": ""}, "#/tag"),
        ({"channel": "hook", "scope": "tag", "tag": "x" * 51}, "#/tag"),
        ({"channel": "hook", "scope": "tag", "tag": 5}, "#/tag"),
        ({"channel": "hook", "scope": "tag", "tag": "a", "monitor": "mine"}, "#/monitor"),
        ({"channel": "hook", "scope": "all", "tag": "a"}, "#/tag"),
        ({"channel": "hook", "scope": "all", "monitor": "mine"}, "#/monitor"),
        ({"channel": "hook", "scope": "monitor"}, "#/monitor"),
        ({"channel": "hook", "scope": "monitor", "monitor": None}, "#/monitor"),
        ({"channel": "hook", "scope": "monitor", "monitor": "theirs"}, "#/monitor"),
        ({"channel": "hook", "scope": "monitor", "monitor": 2_000_000_000}, "#/monitor"),
        ({"channel": "hook", "scope": "all", "event": "opened"}, "#/event"),
    ],
)
def test_refuses_subscriptions_to_nothing(client, hook, sent, named):
    ids = {
        "hook": hook.id, "foreign": webhook(globex()).id, "mine": monitor(acme()).id, "theirs": monitor(globex()).id
    }  # fmt: skip
    answer = client.post(
        SUBSCRIPTIONS, {n: ids.get(v, v) if isinstance(v, str) else v for n, v in sent.items()}
    )
    assert pointers(answer) == [named]
    assert not Subscription.objects.exists()


def test_says_the_same_of_what_is_foreign_and_what_does_not_exist(client, hook):
    theirs, missing = monitor(globex()).id, 2_000_000_000
    sentences = {
        json.dumps(
            client.post(SUBSCRIPTIONS, {"channel": hook.id, "scope": "monitor", "monitor": which}).json()
            | {"request_id": None}
        ).replace(str(which), "…")
        for which in (theirs, missing)
    }
    assert len(sentences) == 1


def test_the_loser_of_two_equal_subscriptions_at_once_is_told(client, hook):
    """What the serializer found free is taken when it comes to be written: the database says so."""
    late = iter([lambda: subscribed(hook, scope="all")])

    def somebody_else(execute, sql, params, many, context):
        if sql.startswith("SAVEPOINT") and (deed := next(late, None)):
            deed()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(somebody_else):
        answer = client.post(SUBSCRIPTIONS, {"channel": hook.id})
    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    assert Subscription.objects.count() == 1


# --- deliveries -------------------------------------------------------------------------------------------


@pytest.fixture
def told(hook) -> list[Delivery]:
    """Of an outage and its end, to two channels: deliveries 0 and 1 of the opening, 2 and 3 of the end."""
    subscribed(hook, scope="all"), subscribed(webhook(acme()), scope="all")
    shop = monitor(acme())
    for n, status in enumerate(["down", "up"]):
        incidents.apply([change(shop, status, after(n))], after(n))
    return list(Delivery.objects.order_by("id"))


def kill(*deliveries: Delivery) -> None:
    Delivery.objects.filter(pk__in=[each.pk for each in deliveries]).update(
        status="dead", attempts=13, next_attempt_at=None, last_error="It answered 500."
    )


def test_shows_deliveries(client, told, hook):
    rows = client.get(DELIVERIES).json()["results"]
    assert [row["id"] for row in rows] == [delivery.id for delivery in reversed(told)]
    first = rows[-1]
    assert {name: first[name] for name in first if not name.endswith("_at")} == {
        "id": told[0].id, "channel": hook.id, "channel_name": "Hook", "channel_kind": "webhook",
        "incident": Incident.objects.get().id, "kind": "opened", "subject": "DOWN: Shop (status)",
        "key": told[0].key, "status": "pending", "attempts": 0, "last_error": "",
    }  # fmt: skip
    assert (first["sent_at"], first["next_attempt_at"]) == (None, first["created_at"])


def test_one_delivery_by_itself_has_its_tries(client, told, django_assert_num_queries):
    for n in range(1, 103):
        told[0].tries.create(started_at=after(n), took_ms=n, outcome="failed", detail=f"It answered {n}.")
    told[1].tries.create(started_at=after(200))
    with django_assert_num_queries(4):
        tries = client.get(f"{DELIVERIES}{told[0].id}/").json()["tries"]
    assert len(tries) == 100
    assert tries[-1] == {
        "started_at": after(102).isoformat().replace("+00:00", "Z"), "took_ms": 102, "outcome": "failed",
        "detail": "It answered 102.",
    }  # fmt: skip
    [under_way] = client.get(f"{DELIVERIES}{told[1].id}/").json()["tries"]
    assert (under_way["outcome"], under_way["took_ms"]) == ("under_way", None)
    assert "tries" not in client.get(DELIVERIES).json()["results"][0]


def test_filters_deliveries(client, told, hook):
    kill(told[0])
    incident = Incident.objects.get()
    for query, wanted in [
        ("status=dead", [0]),
        ("status=dead&status=pending", [3, 2, 1, 0]),
        ("status=sent", []),
        (f"channel={hook.id}", [2, 0]),
        (f"channel={hook.id}&status=pending", [2]),
        (f"incident={incident.id}", [3, 2, 1, 0]),
        ("incident=2000000000", []),
        ("kind=opened", [1, 0]),
        ("kind=opened&kind=resolved&status=pending", [3, 2, 1]),
        ("kind=degraded", []),
        ("channel=99999999999999999999", []),
    ]:
        rows = client.get(f"{DELIVERIES}?{query}").json()["results"]
        assert [row["id"] for row in rows] == [told[n].id for n in wanted], query


@pytest.mark.parametrize(
    "query", ["status=lost", "kind=opend", "channel=x", "channel=1.5", "incident=%00", "limit=0", "chanel=1"]
)
def test_refuses_filters_it_cannot_read(client, told, query):
    kill(*told)
    named = [f"#/{query.partition('=')[0]}"]
    assert pointers(client.get(f"{DELIVERIES}?{query}")) == named
    if "limit" not in query:
        assert pointers(client.post(f"{DELIVERIES}replay/?{query}")) == named
    assert Delivery.objects.filter(status="dead").count() == 4, "a mistyped filter must not replay everything"


def test_replays_one_that_is_dead(client, told):
    kill(told[0])
    answer = client.post(f"{DELIVERIES}{told[0].id}/replay/")
    assert answer.status_code == 200
    again = answer.json()
    assert (again["status"], again["attempts"], again["key"]) == ("pending", 0, told[0].key)
    assert again["next_attempt_at"]
    refused = client.post(f"{DELIVERIES}{told[0].id}/replay/")
    assert (refused.status_code, refused["Content-Type"]) == (409, "application/problem+json")


@pytest.mark.parametrize("status", ["pending", "sending", "sent", "muted"])
def test_replays_nothing_that_is_not_dead(client, told, status):
    Delivery.objects.filter(pk=told[0].pk).update(status=status, sent_at=NOON, leased_until=NOON, lease=1)
    before = Delivery.objects.values().get(pk=told[0].pk)
    assert client.post(f"{DELIVERIES}{told[0].id}/replay/").status_code == 409
    assert client.post(f"{DELIVERIES}replay/").json() == {"replayed": 0}
    assert Delivery.objects.values().get(pk=told[0].pk) == before


def test_replays_by_filter_within_the_team(client, told, hook):
    kill(*told)
    theirs = subscribed(webhook(globex()), scope="all")
    kill(notifications.test(theirs, NOON))
    assert client.post(f"{DELIVERIES}replay/?channel={theirs.id}").json() == {"replayed": 0}
    assert client.post(f"{DELIVERIES}replay/?channel={hook.id}&status=dead").json() == {"replayed": 2}
    assert client.post(f"{DELIVERIES}replay/").json() == {"replayed": 2}
    assert theirs.deliveries.get().status == "dead"


@pytest.mark.parametrize("verb", ["put", "patch", "delete"])
def test_deliveries_cannot_be_written(told, verb):
    assert (
        getattr(client_of(alice()), verb)(f"{DELIVERIES}{told[0].id}/", {"status": "sent"}).status_code == 405
    )
    assert client_of(alice()).post(DELIVERIES, {}).status_code == 405


@pytest.mark.parametrize("rows", [2, 12])
def test_lists_deliveries_at_one_price(client, hook, rows, django_assert_num_queries):
    for _ in range(rows):
        notifications.test(hook, NOON)
    with django_assert_num_queries(3):  # the caller, the team, the deliveries with message and channel
        assert len(client.get(DELIVERIES).json()["results"]) == rows


# --- templates --------------------------------------------------------------------------------------------

WORDS = {
    "kind": "opened",
    "subject": "{{ monitor.name }} is down",
    "text": "{{ text }}\n\nCall {{ team }}.\n",
}


def test_keeps_a_teams_own_words(client):
    made = client.post(TEMPLATES, WORDS)
    assert made.status_code == 201, made.content
    shown = made.json()
    assert {name: shown[name] for name in WORDS} == WORDS
    where = f"{TEMPLATES}{shown['id']}/"
    assert client.get(where).json() == shown
    assert client.get(TEMPLATES).json()["results"] == [shown]
    changed = client.patch(where, {"subject": ""}).json()
    assert (changed["subject"], changed["text"]) == ("", WORDS["text"])
    assert changed["updated_at"] > shown["updated_at"]
    assert client.put(where, WORDS | {"kind": "resolved"}).json()["kind"] == "resolved"
    assert client.delete(where).status_code == 204


def test_there_is_one_template_for_a_kind_in_each_team(client):
    client.post(TEMPLATES, WORDS)
    other = client.post(TEMPLATES, WORDS | {"kind": "resolved"}).json()
    assert pointers(client.post(TEMPLATES, WORDS)) == ["#/kind"]
    assert pointers(client.patch(f"{TEMPLATES}{other['id']}/", {"kind": "opened"})) == ["#/kind"]
    assert client_of(charlie()).post(TEMPLATES, WORDS).status_code == 201


def test_the_loser_of_two_templates_at_once_is_told(client):
    late = iter([lambda: MessageTemplate.objects.create(team=acme(), kind="opened")])

    def somebody_else(execute, sql, params, many, context):
        if sql.startswith("SAVEPOINT") and (deed := next(late, None)):
            deed()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(somebody_else):
        answer = client.post(TEMPLATES, WORDS)
    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("kind", ["", None, "opend", 1]),
        (
            "subject",
            [None, 5, "two\nlines", "x" * 501, "{{ nobody }}", "{{ monitor.name", "{{ monitor.__class__ }}"],
        ),
        ("text", [None, 5, "x" * 10_001, "{{ nobody }}", "{{#runbook}}never closed", "{{/runbook}}"]),
        ("html", ["<b>"]),
    ],
)
def test_refuses_words_that_cannot_be_said(client, field, values):
    for value in values:
        answer = client.post(TEMPLATES, WORDS | {field: value})
        assert pointers(answer) == [f"#/{field}"], value
    assert not MessageTemplate.objects.exists()


# --- whose it is, and who may -----------------------------------------------------------------------------

ROUTES = [
    # verb    of              tail       sent                least role  answer
    ("get",    "channels",      "",        None,              vera,       200),
    ("patch",  "channels",      "",        {"name": "x"},     ada,        200),
    ("put",    "channels",      "",        HOOK,              ada,        200),
    ("post",   "channels",      "test/",   None,              ada,        202),
    ("delete", "channels",      "",        None,              ada,        204),
    ("get",    "subscriptions", "",        None,              vera,       200),
    ("patch",  "subscriptions", "",        {"tag": "eu"},     ada,        200),
    ("delete", "subscriptions", "",        None,              ada,        204),
    ("get",    "message-templates", "",    None,              vera,       200),
    ("patch",  "message-templates", "",    {"subject": "x"},  ada,        200),
    ("delete", "message-templates", "",    None,              ada,        204),
    ("get",    "deliveries",    "",        None,              vera,       200),
    ("post",   "deliveries",    "replay/", None,              bob,        200),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "of", "tail", "sent", "least", "status"), ROUTES)
def test_hides_what_is_other_teams_and_asks_for_the_role(hook, verb, of, tail, sent, least, status):
    subscribed(hook, scope="tag", tag="prod")
    kill(notifications.test(hook, NOON))
    ids = {
        "channels": hook.id, "subscriptions": hook.subscriptions.get().id, "deliveries": hook.deliveries.get().id,
        "message-templates": MessageTemplate.objects.create(team=acme(), kind="opened").id,
    }  # fmt: skip
    where = f"/api/v1/{of}/{{}}/{tail}"

    def ask(person, which=ids[of]):
        return getattr(client_of(person()), verb)(where.format(which), sent).status_code

    assert ask(charlie) == 404
    for missing in ("0", "99999999999999999999", "x", "²"):
        assert ask(alice, missing) == 404
    ladder = [vera, bob, ada]
    for person in ladder[: ladder.index(least)]:
        assert ask(person) == 403
    assert json.dumps([Channel.objects.get().name, hook.deliveries.get().status]) == '["Hook", "dead"]'
    assert ask(least) == status


@pytest.mark.parametrize(
    ("where", "sent", "least"),
    [
        (CHANNELS, HOOK, ada),
        (TEMPLATES, WORDS, ada),
        (SUBSCRIPTIONS, {"channel": "hook"}, ada),
        (f"{DELIVERIES}replay/", None, bob),
    ],
)
def test_asks_for_the_role_to_make_something(hook, where, sent, least):
    sent = {"channel": hook.id} if sent == {"channel": "hook"} else sent
    ladder = [vera, bob, ada]
    for person in ladder:
        allowed = ladder.index(person) >= ladder.index(least)
        assert (client_of(person()).post(where, sent).status_code != 403) == allowed


def test_lists_nothing_of_other_teams(hook):
    subscribed(hook, scope="all")
    notifications.test(hook, NOON)
    MessageTemplate.objects.create(team=acme(), kind="opened")
    for where in (CHANNELS, SUBSCRIPTIONS, DELIVERIES, TEMPLATES):
        assert len(client_of(vera()).get(where).json()["results"]) == 1
        assert client_of(charlie()).get(where).json()["results"] == []
