"""Every page, action and choice of the console, for everybody: generated from what is registered.

A `ModelAdmin` that nobody has made a row for here fails the run, so a new page cannot be forgotten.
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.utils.html import escape
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from accounts import tokens
from accounts.console import SuperusersOnly, TeamInline, TeamRows
from accounts.models import ApiKey, AuditEntry, Role, Team, User
from incidents.models import Incident
from monitors import recording
from monitors.models import Monitor, Prober, Region
from notifications.models import Channel, Delivery, MessageTemplate
from tests.support.people import acme, globex, member
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db

REGISTERED = {model._meta.label: options for model, options in admin.site._registry.items()}
SCOPED = {label: options for label, options in REGISTERED.items() if isinstance(options, TeamRows)}
ROLES = [Role.VIEWER, Role.RESPONDER, Role.ADMIN, Role.OWNER]
THEIRS = "Theirs-alone"  # in the name of everything that is the other team's
OURS = "Ours-alone"


def _channel(team: Team, name: str) -> Channel:
    found = Channel.objects.filter(team=team, name=name).first()
    if found is None:
        made = webhook(team)
        Channel.objects.filter(pk=made.pk).update(name=name)
        found = Channel.objects.get(pk=made.pk)
    return found


def _delivery(team: Team, name: str) -> Delivery:
    found = Delivery.objects.filter(channel__team=team).first()
    if found is None:
        channel = _channel(team, name)
        subscribed(channel, scope="all")
        shop = monitor(team, name=name, failures_to_open=1)
        recording.record([outcome(shop, "dns")], after(2))
        found = Delivery.objects.get(channel=channel)
    return found


def _incident(team: Team, name: str) -> Incident:
    _delivery(team, name)
    return Incident.objects.get(team=team)


def _key(team: Team, name: str) -> ApiKey:
    new = tokens.new_key()
    return ApiKey.objects.create(
        team=team, name=name, prefix=new.prefix, secret_hash=new.kept, scopes=["read"]
    )


def _audit(team: Team, name: str) -> AuditEntry:
    monitor(team, name=name)
    return AuditEntry.objects.filter(team=team, kind="monitor", name=name).get()


MADE: dict[str, Callable[[Team, str], Model]] = {
    "accounts.ApiKey": _key,
    "accounts.AuditEntry": _audit,
    "accounts.Team": lambda team, name: _named(team, name),
    "accounts.User": lambda team, name: member(name, Role.VIEWER, team),
    "incidents.Incident": _incident,
    "monitors.Monitor": lambda team, name: monitor(team, name=name),
    "notifications.Channel": _channel,
    "notifications.Delivery": _delivery,
    "notifications.MessageTemplate": lambda team, name: MessageTemplate.objects.create(
        team=team, kind="opened", subject=name
    ),
}  # fmt: skip

OF_NO_TEAM: dict[str, Callable[[], Model]] = {
    "django_celery_beat.PeriodicTask": lambda: PeriodicTask.objects.create(
        name="tick", task="monitors.tasks.tick", interval=IntervalSchedule.objects.create(every=1, period="seconds")
    ),
    "monitors.Prober": lambda: Prober.objects.create(name="host-1", region="default", seen_at=NOON),
    "monitors.Region": lambda: Region.objects.get(),
}  # fmt: skip


def _named(team: Team, name: str) -> Team:
    Team.objects.filter(pk=team.pk).update(name=name)
    return Team.objects.get(pk=team.pk)


def staff(role: Role | None, team: Team) -> Client:
    user = member(f"staff-{role}-{team.slug}", role or Role.VIEWER, team)
    if role is None:
        user.memberships.all().delete()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return signed_in(user)


def superuser() -> Client:
    return signed_in(User.objects.create_superuser("root@example.com", None))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def page(label: str, tail: str = "") -> str:
    return f"/admin/{label.lower().replace('.', '/')}/{tail}"


def may(options: TeamRows, deed: str, role: Role | None) -> bool:
    minimum = options.minimum(deed)
    return minimum is not None and role is not None and ROLES.index(role) >= ROLES.index(minimum)


def fingerprint(row: Model) -> dict[str, Any] | None:
    return type(row)._default_manager.filter(pk=row.pk).values().first()


@pytest.mark.parametrize("label", REGISTERED)
def test_every_page_says_whose_rows_it_shows(label):
    options = REGISTERED[label]
    assert isinstance(options, (TeamRows, SuperusersOnly)), (
        f"{label} takes neither TeamRows nor SuperusersOnly"
    )
    for inline in options.inlines:
        assert issubclass(inline, TeamInline), f"{inline} of {label}"
    if label in SCOPED:
        assert label in MADE, f"say in MADE how one of {label} is made"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("label", SCOPED)
def test_a_team_sees_its_own_and_does_what_its_role_allows(label, role):
    options = SCOPED[label]
    client = staff(role, acme())
    ours, theirs = MADE[label](acme(), OURS), MADE[label](globex(), THEIRS)
    seen = may(options, "view", role)

    answer = client.get(page(label))
    assert answer.status_code == (200 if seen else 403)
    if seen:
        assert {row.pk for row in answer.context["cl"].queryset} >= {ours.pk}
        assert theirs.pk not in {row.pk for row in answer.context["cl"].queryset}
        assert THEIRS.lower() not in answer.content.decode().lower()
    assert client.get(page(label, f"{ours.pk}/change/")).status_code == (200 if seen else 404)
    assert client.get(page(label, f"{ours.pk}/history/")).status_code == (200 if seen else 404)

    added = client.get(page(label, "add/"))
    request = added.wsgi_request
    assert added.status_code == (
        200 if may(options, "add", role) and options.has_add_permission(request) else 403
    )
    if added.status_code == 200:
        assert THEIRS.lower() not in added.content.decode().lower()
    before = fingerprint(ours)
    if seen and not options.has_change_permission(request, ours):
        assert client.post(page(label, f"{ours.pk}/change/"), {}).status_code == 403
    deleted = client.post(page(label, f"{ours.pk}/delete/"), {})
    assert deleted.status_code in ((200, 403) if seen else (404,))
    assert fingerprint(ours) == before


@pytest.mark.parametrize("who", [*ROLES, None, "nobody"])
@pytest.mark.parametrize("label", REGISTERED)
def test_what_is_somebody_elses_does_not_exist(label, who):
    options = REGISTERED[label]
    client = Client() if who == "nobody" else staff(who, acme())
    if label in SCOPED:
        MADE[label](acme(), OURS)
        theirs = MADE[label](globex(), THEIRS)
    else:
        theirs = OF_NO_TEAM[label]()
    before = fingerprint(theirs)
    refused = (302,) if who == "nobody" else (403, 404)
    only_404 = (302,) if who == "nobody" else (404,) if label in SCOPED else (403, 302)
    for tail in ("change/", "history/", "delete/"):
        url = page(label, f"{theirs.pk}/{tail}")
        assert client.get(url).status_code in only_404, url
        assert client.post(url, {"post": "yes"}).status_code in only_404, url
    for name in options.actions_detail or ():
        url = page(label, f"{theirs.pk}/{getattr(options, name).url_path}/")
        assert client.get(url).status_code in refused, url
        assert client.post(url, {"_form_submitted": "True"}).status_code in refused, url
    for name in [*(options.actions or ()), "delete_selected"]:
        answer = client.post(
            page(label),
            {"action": name, "_selected_action": [theirs.pk], "post": "yes", "select_across": "0"},
        )
        assert answer.status_code in (200, 302, 403)
        assert THEIRS not in answer.content.decode()
        across = {"action": name, "_selected_action": [theirs.pk], "post": "yes", "select_across": "1"}
        if label in SCOPED and who in ROLES and name not in ("delete_selected",):
            client.post(page(label), across)
    assert fingerprint(theirs) == before


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("label", SCOPED)
def test_actions_take_the_role_that_they_name(label, role):
    options = SCOPED[label]
    ours = MADE[label](acme(), OURS)
    client = staff(role, acme())
    request = client.get("/admin/").wsgi_request
    offered = options.get_actions(request)
    for name in options.actions or ():
        deeds = getattr(getattr(options, name), "allowed_permissions", ["change"])
        assert (name in offered) is all(may(options, deed, role) for deed in deeds), name
    assert ("delete_selected" in offered) is options.has_delete_permission(request)
    for name in options.actions_detail or ():
        deeds = getattr(options, name).allowed_permissions
        allowed = all(may(options, deed, role) for deed in deeds)
        url = page(label, f"{ours.pk}/{getattr(options, name).url_path}/")
        answer = client.post(url, {"_form_submitted": "True"})
        assert (answer.status_code == 200) is allowed, (url, answer.status_code)


def test_a_role_on_one_team_is_none_on_another():
    """Ours administers one team and looks at another: what she may do here she may not do there."""
    user = member("ours", Role.ADMIN, acme())
    member("ours", Role.VIEWER, globex())
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = signed_in(user)
    ours, theirs = monitor(acme(), name=OURS), monitor(globex(), name=THEIRS)
    listed = client.get(page("monitors.Monitor")).content.decode()
    assert OURS in listed and THEIRS in listed
    assert (
        client.post(page("monitors.Monitor", f"{theirs.pk}/pause/"), {"_form_submitted": "True"}).status_code
        == 403
    )
    assert client.post(page("monitors.Monitor", f"{theirs.pk}/change/"), {}).status_code == 403
    assert client.get(page("monitors.Monitor", f"{theirs.pk}/delete/")).status_code == 403
    for name in ("pause_selected", "delete_selected"):
        for across in ("0", "1"):
            answer = client.post(
                page("monitors.Monitor"),
                {
                    "action": name,
                    "_selected_action": [ours.pk, theirs.pk],
                    "post": "yes",
                    "select_across": across,
                },
                follow=True,
            )
            assert escape("Nothing was done") in answer.content.decode()
            assert Monitor.objects.filter(enabled=True).count() == 2
    both = {"action": ["pause_selected", ""], "index": "1", "_selected_action": [theirs.pk]}
    client.post(page("monitors.Monitor"), both)
    assert Monitor.objects.filter(enabled=True).count() == 2
    # In `team` there is but the team that she may add to.
    choices = client.get(page("monitors.Monitor", "add/")).context["adminform"].form.fields["team"].queryset
    assert list(choices) == [acme()]


@pytest.mark.parametrize("role", [*ROLES, None])
def test_completes_nothing_with_what_is_somebody_elses(role):
    client = staff(role, acme())
    monitor(acme(), name=OURS), monitor(globex(), name=THEIRS)
    _named(globex(), THEIRS), member(THEIRS.lower(), Role.OWNER, globex())
    asked = 0
    for model in apps.get_models():
        for field in model._meta.get_fields():
            if not getattr(field, "remote_field", None) or not field.concrete:
                continue
            query = {
                "app_label": model._meta.app_label,
                "model_name": model._meta.model_name,
                "field_name": field.name,
            }
            answer = client.get("/admin/autocomplete/", query | {"term": "alone"})
            assert answer.status_code in (200, 403, 404), query
            assert THEIRS.lower() not in answer.content.decode().lower(), query
            asked += 1
    assert asked > 10


def test_offers_no_foreign_rows_to_filter_by():
    _delivery(globex(), THEIRS), _delivery(acme(), OURS), _named(globex(), THEIRS), _named(acme(), OURS)
    client = staff(Role.ADMIN, acme())
    for label, options in SCOPED.items():
        content = client.get(page(label)).content.decode()
        assert THEIRS not in content, label
        for each in options.list_filter:
            if isinstance(each, str):
                answer = client.get(page(label), {f"{each}__id__exact": globex().pk}, follow=True)
                assert THEIRS not in answer.content.decode(), (label, each)


def test_adds_nothing_to_a_team_where_one_may_not():
    client = staff(Role.ADMIN, acme())
    answer = client.post(
        page("notifications.MessageTemplate", "add/"),
        {"team": globex().pk, "kind": "opened", "subject": "x", "text": ""},
    )
    assert answer.status_code == 200
    assert "team" in answer.context["adminform"].form.errors
    ours = _channel(acme(), OURS)
    row = {"scope": "monitor", "monitor": monitor(globex(), name=THEIRS).pk}
    sent = {"name": "Hook", "config": '{"url": "https://hooks.example.com/1"}', "enabled": "on"}
    sent |= {"subscriptions-TOTAL_FORMS": 1, "subscriptions-INITIAL_FORMS": 0}
    sent |= {f"subscriptions-0-{name}": value for name, value in row.items()}
    answer = client.post(page("notifications.Channel", f"{ours.pk}/change/"), sent)
    assert answer.status_code == 200, "it was saved"
    assert THEIRS not in answer.content.decode()


def test_superusers_see_everything():
    client = superuser()
    for label in SCOPED:
        theirs = MADE[label](globex(), THEIRS)
        assert client.get(page(label)).status_code == 200
        assert client.get(page(label, f"{theirs.pk}/change/")).status_code == 200, label
    for label in REGISTERED:
        assert client.get(page(label)).status_code == 200, label


def test_no_page_shows_a_persons_hash_to_their_team():
    client = staff(Role.OWNER, acme())
    bob = member("bob", Role.RESPONDER, acme())
    member("bob", Role.OWNER, _named(globex(), THEIRS))
    for tail in ("change/", "password/"):
        content = client.get(page("accounts.User", f"{bob.pk}/{tail}")).content.decode()
        assert "argon2" not in content
        assert THEIRS not in content


def test_whoever_is_no_staff_is_told_so():
    client = signed_in(member("bob", Role.OWNER, acme()))
    answer = client.get("/admin/", follow=True)
    assert answer.status_code == 403
    assert b"may not enter the console" in answer.content


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
def test_the_number_of_queries_does_not_grow_with_rows_or_teams(role, django_assert_max_num_queries):
    client = staff(role, acme())
    for _ in range(20):
        monitor(acme(), name=OURS)
    with django_assert_max_num_queries(14):
        assert client.get(page("monitors.Monitor")).status_code == 200
