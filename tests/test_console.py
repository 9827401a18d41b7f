"""The console's pages of monitors, incidents and channels: shown, escaped, judged as the API judges."""

import re
from datetime import time

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from incidents.models import Incident
from monitors import recording
from monitors.models import Monitor, Prober, Region, RegionState
from notifications import services as notifications
from notifications.models import Channel, Delivery, MessageTemplate, Subscription
from notifications.transports import TRANSPORTS
from tests.support.people import acme, alice, charlie, globex, vera
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db

CANARY = "<script>alert('xss')</script>"
APPS = ("monitors", "incidents", "notifications")
PAGES = [model for model in admin.site._registry if model._meta.app_label in APPS]


@pytest.fixture
def client() -> Client:
    user = alice()
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


@pytest.fixture
def shop() -> Monitor:
    """A monitor with a canary wherever a text can be, down, its channel told of it."""
    shop = monitor(
        acme(), name=f"Shop {CANARY}", url=f"http://127.0.0.1:9/{CANARY}", tags=[CANARY], description=CANARY,
        body=CANARY, headers={"X-A": CANARY}, failures_to_open=1,
    )  # fmt: skip
    channel = webhook(acme())
    Channel.objects.filter(pk=channel.pk).update(name=f"Hook {CANARY}", disabled_reason=CANARY)
    subscribed(channel, scope="all"), subscribed(channel, scope="tag", tag=CANARY)
    evidence = {"body": CANARY, "headers": {"Server": CANARY}}
    recording.record([outcome(shop, "status", detail=CANARY, evidence=evidence)], after(2))
    Incident.objects.get().events.create(kind="commented", text=CANARY, by=alice())
    Delivery.objects.update(last_error=CANARY)
    MessageTemplate.objects.create(team=acme(), kind="opened", subject=CANARY, text=CANARY)
    Prober.objects.create(name=CANARY, region="default", seen_at=NOON)
    return shop


def page(model, tail: str = "") -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/{tail}"


def change(thing, tail: str = "change/") -> str:
    return page(type(thing), f"{thing.pk}/{tail}")


def errors(answer) -> dict:
    assert answer.status_code == 200, "it was saved"
    return dict(answer.context["adminform"].form.errors)


# --- looking --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_shows_every_page_and_escapes_what_it_shows(client, shop, model):
    row = model.objects.order_by("-pk").first()
    options = admin.site._registry[model]
    urls = [page(model), page(model, "?q=shop"), page(model, "add/"), *(
        change(row, tail) for tail in ("change/", "history/", "delete/")
    )]  # fmt: skip
    urls += [page(model, f"?{name}__exact=x") for name in options.list_filter]
    urls += [page(model, f"?o={n}") for n in range(1, len(options.get_list_display(None)) + 1)]
    for url in urls:
        answer = client.get(url, follow=True)
        if answer.status_code == 403:  # rows that machines write; and a region, which is disabled and stays
            deed = options.has_add_permission if url.endswith("add/") else options.has_delete_permission
            assert url.endswith(("add/", "delete/")) and not deed(answer.wsgi_request)
            continue
        assert answer.status_code == 200, url
        assert CANARY not in answer.content.decode(), url


def test_escapes_rather_than_hides(client, shop):
    escaped = "&lt;script&gt;alert(&#x27;xss&#x27;)&lt;/script&gt;"
    incident = Incident.objects.get()
    for url in (
        page(Monitor),
        change(shop),
        page(Incident),
        change(incident),
        change(Delivery.objects.first()),
    ):
        assert escaped in client.get(url).content.decode(), url


def test_shows_no_secrets(client):
    from monitors import headers

    shop = monitor(
        acme(), sealed_headers=headers.seal(acme().id, {"Authorization": "Bearer correct-horse-battery"})
    )
    channel, secrets = notifications.create_channel(
        acme(), "Hook", "webhook", {"url": "https://hooks.example.com/"}, True, NOON
    )
    for thing, secret, mask in ((shop, "correct-horse", "***tery"), (channel, secrets["secret"], "***")):
        content = client.get(change(thing)).content.decode()
        assert mask in content
        assert secret not in content


@pytest.mark.parametrize("model", [Monitor, Incident, Delivery])
def test_the_number_of_queries_of_a_list_does_not_grow_with_its_rows(
    client, model, django_assert_max_num_queries
):
    subscribed(webhook(acme()), scope="all")
    for _ in range(30):
        shop = monitor(acme(), failures_to_open=1)
        recording.record([outcome(shop, "dns")], after(2))
    with django_assert_max_num_queries(12):
        assert client.get(page(model)).status_code == 200


def test_keeps_others_out(shop):
    User.objects.filter(pk=charlie().pk).update(is_staff=True)
    for person in (None, charlie()):
        client = Client()
        if person:
            client.force_login(User.objects.get(pk=person.pk))
        for model in PAGES:
            answer = client.get(page(model))
            assert answer.status_code in (200, 302, 403)
            assert answer.status_code != 200 or not answer.context["cl"].result_list
        assert client.post(change(shop, "pause/"), {"_form_submitted": "True"}).status_code in (302, 404)
    assert Monitor.objects.get().enabled


# --- monitors ---------------------------------------------------------------------------------------------------


def form(**fields) -> dict:
    defaults = {
        "team": acme().pk, "name": "Shop", "kind": "http", "url": "https://shop.example.com/", "method": "GET",
        "headers": "{}", "body": "", "interval_seconds": 30, "timeout_seconds": 10, "expected_status": "200-299",
        "follow_redirects": "on", "verify_tls": "on", "degraded_after_ms": "", "failures_to_open": 2,
        "successes_to_close": 1, "recheck_seconds": 5, "connection": "fresh", "tags": "", "severity": "critical",
        "description": "", "runbook_url": "", "regions": ["default"],
    }  # fmt: skip
    return defaults | fields


def test_adds_a_monitor_as_the_api_does(client):
    sent = form(tags="prod, eu", headers='{"Accept": "*/*", "Authorization": "Bearer hush-hush-hush"}')
    answer = client.post(page(Monitor, "add/"), sent, follow=True)
    shop = Monitor.objects.get()
    assert "Shop" in said(answer)
    assert (shop.team, shop.tags, shop.headers, shop.status) == (
        acme(),
        ["prod", "eu"],
        {"Accept": "*/*"},
        "new",
    )
    assert "hush" not in shop.sealed_headers
    state = RegionState.objects.get()
    assert (state.region.slug, state.recheck_at) == ("default", shop.created_at)
    assert shop.periods.count() == 1
    history = client.get(change(shop, "history/")).content.decode()
    assert "Added" in history


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "http://10.0.0.5/"}, "url"),
        ({"url": "http://169.254.169.254/"}, "url"),
        ({"url": "https://me:secret@example.com/"}, "url"),
        ({"interval_seconds": 7}, "interval_seconds"),
        ({"timeout_seconds": 31}, "timeout_seconds"),
        ({"timeout_seconds": "nan"}, "timeout_seconds"),
        ({"timeout_seconds": ""}, "timeout_seconds"),
        ({"failures_to_open": 0}, "failures_to_open"),
        ({"expected_status": "ok"}, "expected_status"),
        ({"headers": "{"}, "headers"),
        ({"headers": "[]"}, "headers"),
        ({"headers": '{"X-A": "a\\nb"}'}, "headers"),
        ({"headers": '{"X-A": "a\\u0000b"}'}, "headers"),
        ({"headers": '{"Authorization": "***"}'}, "headers"),
        ({"regions": []}, "regions"),
        ({"regions": ["atlantis"]}, "regions"),
        ({"tags": "x" * 51}, "tags"),
        ({"team": ""}, "team"),
        ({"team": 2_000_000_000}, "team"),
        ({"runbook_url": "javascript:alert(1)"}, "runbook_url"),
        ({"degraded_after_ms": 0}, "degraded_after_ms"),
        ({"body": "x" * 65_537}, "body"),
        ({"severity": ""}, "severity"),
        ({"severity": "dire"}, "severity"),
    ],
)
def test_refuses_what_the_api_refuses(client, given, named):
    assert named in errors(client.post(page(Monitor, "add/"), form(**given)))
    assert not Monitor.objects.exists()
    shop = monitor(acme())
    before = Monitor.objects.values().get()
    if named != "team":
        assert named in errors(client.post(change(shop), form(**given)))
    assert Monitor.objects.values().get() == before


def test_changes_a_monitor_as_the_api_does(client):
    Region.objects.create(slug="eu", name="Europe")
    client.post(page(Monitor, "add/"), form(degraded_after_ms=500, tags="a", headers='{"Cookie": "id=hush"}'))
    shop = Monitor.objects.get()
    token = shop.sealed_headers
    shown = client.get(change(shop)).context["adminform"].form
    headers = shown["headers"].value()

    sent = form(
        team=globex().pk, name="Store", interval_seconds=60, regions=["default", "eu"], headers=headers,
        degraded_after_ms="", tags="",
    )  # fmt: skip
    del sent["verify_tls"]
    assert client.post(change(shop), sent).status_code == 302
    shop.refresh_from_db()
    assert (shop.team, shop.name, shop.interval_seconds, shop.verify_tls) == (acme(), "Store", 60, False)
    assert (shop.degraded_after_ms, shop.tags) == (None, [])
    assert shop.sealed_headers == token
    assert shop.states.count() == 2
    assert shop.periods.count() == 2, "its cadence changed"


@pytest.mark.parametrize("deed", ["pause/", "resume/", "check/"])
def test_a_deed_is_a_post_with_a_token(client, deed):
    shop = monitor(acme(), enabled=deed != "resume/")
    shop.states.update(recheck_at=None)
    before = Monitor.objects.values().get(), RegionState.objects.values().get()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice())
    asked = client.get(change(shop, deed))
    assert asked.status_code == 200
    assert "csrfmiddlewaretoken" in asked.content.decode()
    client.get(change(shop, deed) + "?_form_submitted=True")
    client.post(change(shop, deed))  # a dialog that was not confirmed
    client.head(change(shop, deed))
    assert strict.post(change(shop, deed), {"_form_submitted": "True"}).status_code == 403
    assert (Monitor.objects.values().get(), RegionState.objects.values().get()) == before

    done = client.post(change(shop, deed), {"_form_submitted": "True"})
    assert done["HX-Redirect"] == change(shop)
    shop.refresh_from_db()
    assert shop.status == {"pause/": "paused", "resume/": "new", "check/": "new"}[deed]
    assert (shop.states.get().recheck_at is None) == (deed == "pause/")


@pytest.mark.parametrize("deed", ["pause/", "resume/", "check/"])
def test_a_deed_to_nothing_does_nothing(client, deed):
    for missing in ("2000000000", "99999999999999999999", "x"):
        answer = client.post(page(Monitor, f"{missing}/{deed}"), {"_form_submitted": "True"})
        assert answer.status_code == 404


def said(answer) -> str:
    return " ".join(map(str, answer.context["messages"]))


def act(client, model, action: str, *rows) -> str:
    sent = {"action": action, "_selected_action": [row.pk for row in rows], "index": 0}
    return said(client.post(page(model), sent, follow=True))


def test_pauses_resumes_and_checks_those_selected(client):
    one, two, three = (monitor(acme()) for _ in range(3))
    assert "Paused 2" in act(client, Monitor, "pause_selected", one, two)
    assert "Checking 1" in act(client, Monitor, "check_selected", one, three)
    assert "Resumed 2" in act(client, Monitor, "resume_selected", one, two, three)
    assert set(Monitor.objects.values_list("status", flat=True)) == {"new"}


def test_deleting_resolves_incidents(client, shop):
    assert client.post(change(shop, "delete/"), {"post": "yes"}).status_code == 302
    incident = Incident.objects.get()
    assert (incident.monitor, incident.resolution) == (None, "deleted")
    assert incident.events.last().by == alice()
    other = monitor(acme())
    client.post(page(Monitor), {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"})
    assert not Monitor.objects.exists()


# --- incidents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deed", "status"), [("acknowledge", "acknowledged"), ("resolve", "resolved")])
@pytest.mark.parametrize("how", ["page", "list"])
def test_acknowledges_and_resolves(client, shop, deed, status, how):
    incident = Incident.objects.get()
    client.get(change(incident, f"{deed}/"))
    incident.refresh_from_db()
    assert incident.status == "open"
    for _ in range(2):  # the second time somebody was first, which is no error
        if how == "page":
            answer = client.post(change(incident, f"{deed}/"), {"_form_submitted": "True"})
            assert answer["HX-Redirect"] == change(incident)
        else:
            assert act(client, Incident, f"{deed}_selected", incident)
    incident.refresh_from_db()
    assert incident.status == status
    assert incident.events.last().by == alice()


def test_incidents_cannot_be_written_by_hand(client, shop):
    incident = Incident.objects.get()
    assert client.post(change(incident), {"status": "resolved"}).status_code == 403
    assert client.post(change(incident, "delete/"), {"post": "yes"}).status_code == 403


# --- channels and deliveries ----------------------------------------------------------------------------------------


def channel_form(*subscriptions: dict, **fields) -> dict:
    rows = {"subscriptions-TOTAL_FORMS": len(subscriptions), "subscriptions-INITIAL_FORMS": 0}
    for n, row in enumerate(subscriptions):
        rows |= {f"subscriptions-{n}-{name}": value for name, value in row.items()}
    config = '{"url": "https://hooks.example.com/1"}'
    return (
        {"team": acme().pk, "name": "Hook", "kind": "webhook", "config": config, "enabled": "on"}
        | rows
        | fields
    )


def test_adds_a_channel_with_its_subscriptions_and_shows_its_secret_once(client):
    shop = monitor(acme())
    sent = channel_form({"scope": "tag", "tag": "prod"}, {"scope": "monitor", "monitor": shop.pk})
    answer = client.post(page(Channel, "add/"), sent, follow=True)
    channel = Channel.objects.get()
    assert re.search(r"whsec_[\w+/=]{44}", said(answer))
    assert "Hook" in said(answer)
    assert [(each.scope, each.tag, each.monitor) for each in channel.subscriptions.order_by("id")] == [
        ("tag", "prod", None),
        ("monitor", "", shop),
    ]
    assert not re.search(r"whsec_[\w+/=]{44}", client.get(change(channel)).content.decode())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"config": ""}, "config"),
        ({"config": "[]"}, "config"),
        ({"config": "{}"}, "config"),
        ({"config": '{"url": "http://10.0.0.5/"}'}, "config"),
        ({"config": '{"url": "https://e.com/", "secret": "hush"}'}, "config"),
        ({"config": '{"url": "https://e.com/", "extra": 1}'}, "config"),
        ({"kind": "email"}, "config"),
        ({"kind": "sms"}, "kind"),
        ({"name": ""}, "name"),
        ({"team": ""}, "team"),
    ],
)
def test_refuses_channels_that_the_api_refuses(client, given, named):
    assert named in errors(client.post(page(Channel, "add/"), channel_form(**given)))
    assert not Channel.objects.exists()


@pytest.mark.parametrize(
    "row", [{"scope": "tag"}, {"scope": "monitor"}, {"scope": "all", "tag": "x"}, {"scope": "x"}]
)
def test_refuses_subscriptions_to_nothing(client, row):
    errors(client.post(page(Channel, "add/"), channel_form(row)))
    assert not Channel.objects.exists()


def test_refuses_subscriptions_to_other_teams_monitors(client):
    theirs = monitor(globex())
    row = {"scope": "monitor", "monitor": theirs.pk}
    for url in (page(Channel, "add/"), change(webhook(acme()))):
        answer = client.post(url, channel_form(row))
        assert "another team" in answer.content.decode()
    assert not Subscription.objects.exists()


def test_adds_a_channel_with_habits_and_a_subscription_with_limits(client):
    limits = {
        "scope": "all", "kinds": ["resolved", "opened"], "min_severity": "warning", "days": ["6", "5"],
        "from_time": "22:00", "until_time": "06:00", "time_zone": "Europe/Berlin",
    }  # fmt: skip
    client.post(page(Channel, "add/"), channel_form(limits))
    client.post(page(Channel, "add/"), channel_form(kind="email", config='{"to": ["ops@example.com"]}'))
    habits = {"gather_seconds": 9, "rate_per_minute": 8, "reminder_minutes": 7}
    client.post(
        page(Channel, "add/"), channel_form(kind="email", config='{"to": ["ops@example.com"]}', **habits)
    )
    hook, mail, other = Channel.objects.order_by("id")
    assert (hook.gather_seconds, hook.rate_per_minute, hook.reminder_minutes) == (0, None, None)
    assert (mail.gather_seconds, mail.rate_per_minute) == (3, TRANSPORTS["email"].rate_per_minute)
    assert (other.gather_seconds, other.rate_per_minute, other.reminder_minutes) == (9, 8, 7)
    assert hook.destination == "hooks.example.com:443"
    made = hook.subscriptions.get()
    assert (made.kinds, made.min_severity, made.days) == (["opened", "resolved"], "warning", [5, 6])
    assert (made.from_time, made.until_time, made.time_zone) == (time(22), time(6), "Europe/Berlin")

    sent = channel_form(
        config='{"to": ["ops@example.com"]}', gather_seconds=9, rate_per_minute="", reminder_minutes=""
    )
    client.post(change(other), sent)
    other.refresh_from_db()
    assert (other.gather_seconds, other.rate_per_minute, other.reminder_minutes) == (9, None, None)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kinds": ["opend"]}, "opend is not one of the available choices"),
        ({"kinds": ["test"]}, "test is not one of the available choices"),
        ({"days": ["7"]}, "7 is not one of the available choices"),
        ({"from_time": "09:00"}, "Where there is `from_time`, this is needed too"),
        ({"until_time": "09:00"}, "Where there is `until_time`, this is needed too"),
        ({"time_zone": "Berlin"}, "one such as Europe/Berlin is needed"),
        ({"min_severity": "dire"}, "dire is not one of the available choices"),
    ],
)
def test_refuses_limits_that_the_api_refuses(client, row, said):
    answer = client.post(page(Channel, "add/"), channel_form({"scope": "all"} | row))
    assert answer.status_code == 200, "it was saved"
    assert said in answer.content.decode()
    assert not Channel.objects.exists()


def test_a_subscription_that_is_added_is_told_of_what_is_open(client, shop):
    channel = webhook(acme())
    shown = client.get(change(channel)).context["adminform"].form["config"].value()
    assert client.post(change(channel), channel_form({"scope": "all"}, config=shown)).status_code == 302
    assert channel.deliveries.get().kind == "opened"


def test_says_who_would_be_told(client, shop):
    subscribed(webhook(globex()), scope="all")
    disabled = webhook(acme())
    Channel.objects.filter(pk=disabled.pk).update(name="Gone", enabled=False)
    content = client.get(change(shop)).content.decode()
    assert "It hears of all monitors." in content
    assert "It is disabled: by hand." in content
    assert change(disabled) in content
    assert change(Channel.objects.get(team=globex())) not in content
    assert f"{page(Channel)}?team__id__exact={acme().pk}" in content


def test_the_last_resort_is_led_nowhere_else(client):
    channel, _ = notifications.create_channel(
        acme(), "Owners", "email", {"to": ["alice@example.com"]}, True, NOON
    )
    Channel.objects.filter(pk=channel.pk).update(for_owners=True)
    assert "alice@example.com" in client.get(change(channel)).content.decode()
    sent = channel_form(config='{"to": ["mallory@example.com"]}', name="Renamed")
    assert client.post(change(channel), sent).status_code == 302
    channel.refresh_from_db()
    assert (channel.name, channel.config) == ("Renamed", {"to": ["alice@example.com"]})
    assert client.post(change(channel, "delete/"), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [channel.pk], "post": "yes"}
    client.post(page(Channel), chosen)
    assert Channel.objects.exists()


def test_shows_how_channels_are_doing(client):
    well, failing, unused, disabled = (webhook(acme()) for _ in range(4))
    Channel.objects.filter(pk__in=[well.pk, failing.pk]).update(last_success_at=NOON)
    Channel.objects.filter(pk=failing.pk).update(failing_since=NOON, failures=3)
    Channel.objects.filter(pk=disabled.pk).update(enabled=False)
    health = admin.site._registry[Channel].shown_health
    for channel, word in [
        (well, "well"),
        (failing, "failing"),
        (unused, "not used yet"),
        (disabled, "disabled"),
    ]:
        channel.refresh_from_db()
        assert health(channel) == word
    assert len(client.get(page(Channel, "?failing_since__isempty=0")).context["cl"].result_list) == 1


def test_shows_the_tries_of_a_delivery(client, shop):
    delivery = Delivery.objects.get()
    delivery.tries.create(started_at=NOON, took_ms=417, outcome="failed", detail=f"It answered 500: {CANARY}")
    content = client.get(change(delivery)).content.decode()
    assert "417" in content
    assert "It answered 500: &lt;script&gt;" in content
    assert CANARY not in content


def test_keeps_a_teams_own_words(client):
    sent = {"team": acme().pk, "kind": "opened", "subject": "{{ monitor.name }}!", "text": ""}
    assert client.post(page(MessageTemplate, "add/"), sent).status_code == 302
    template = MessageTemplate.objects.get()
    assert (template.team, template.subject) == (acme(), "{{ monitor.name }}!")
    assert "kind" in errors(client.post(page(MessageTemplate, "add/"), sent)), "there is one already"
    assert "text" in errors(client.post(change(template), sent | {"text": "{{ nobody }}"}))
    sent |= {"team": globex().pk, "subject": "{{ subject }}", "kind": "resolved"}
    assert client.post(change(template), sent).status_code == 302
    template.refresh_from_db()
    assert (template.team, template.kind, template.subject) == (acme(), "resolved", "{{ subject }}")


def test_changes_a_channel_and_keeps_its_secret(client):
    from notifications.outbox import secrets_of

    channel = webhook(acme())
    secret = secrets_of(channel)
    config = client.get(change(channel)).context["adminform"].form["config"].value()
    sent = channel_form(name="Renamed", team=globex().pk, kind="email", config=config)
    del sent["enabled"]
    assert client.post(change(channel), sent).status_code == 302
    channel.refresh_from_db()
    assert (channel.name, channel.team, channel.kind, channel.enabled) == (
        "Renamed",
        acme(),
        "webhook",
        False,
    )
    assert secrets_of(channel) == secret


def test_sends_a_test_and_replays_what_is_dead(client):
    channel = webhook(acme())
    client.get(change(channel, "test/"))
    assert not Delivery.objects.exists()
    answer = client.post(change(channel, "test/"), {"_form_submitted": "True"})
    delivery = Delivery.objects.get()
    assert answer["HX-Redirect"] == change(delivery)
    assert "Replaying 0" in act(client, Delivery, "replay_selected", delivery)
    Delivery.objects.update(status="dead")
    assert "Replaying 1" in act(client, Delivery, "replay_selected", delivery)


def test_a_region_keeps_its_slug(client):
    region = Region.objects.get()
    sent = {"slug": "elsewhere", "name": "Here", "enabled": "on"}
    assert client.post(change(region), sent).status_code == 302
    region.refresh_from_db()
    assert (region.slug, region.name) == ("default", "Here")


# --- who may only look ------------------------------------------------------------------------------------


@pytest.fixture
def onlooker() -> Client:
    """Staff that may view everything of the team and change nothing, whatever Django's own permissions say."""
    user = vera(acme())
    User.objects.filter(pk=user.pk).update(is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def everything() -> list:
    incident = Incident.objects.values("status", "acknowledged_at", "resolved_at").get()
    return [
        Monitor.objects.get().status,
        incident,
        *Delivery.objects.order_by("id").values("status", "attempts"),
    ]


@pytest.mark.parametrize(
    ("model", "action"),
    [
        (Monitor, "pause_selected"),
        (Monitor, "resume_selected"),
        (Monitor, "check_selected"),
        (Monitor, "delete_selected"),
        (Incident, "acknowledge_selected"),
        (Incident, "resolve_selected"),
        (Delivery, "replay_selected"),
    ],
)
def test_looking_does_not_entitle_to_deeds_on_those_selected(onlooker, shop, model, action):
    Delivery.objects.update(status="dead", next_attempt_at=None)
    before = everything()
    assert onlooker.get(page(model)).status_code == 200
    onlooker.post(
        page(model), {"action": action, "_selected_action": [row.pk for row in model.objects.all()]}
    )
    assert everything() == before


@pytest.mark.parametrize(
    ("model", "deed"),
    [(Monitor, "pause/"), (Monitor, "resume/"), (Monitor, "check/"), (Incident, "acknowledge/"),
     (Incident, "resolve/"), (Channel, "test/")],
)  # fmt: skip
def test_looking_does_not_entitle_to_deeds_on_one(onlooker, shop, model, deed):
    before = everything()
    thing = model.objects.get()
    assert onlooker.get(change(thing)).status_code == 200
    assert onlooker.post(change(thing, deed), {"_form_submitted": "True"}).status_code == 403
    assert everything() == before
