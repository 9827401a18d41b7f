"""ETags: nothing is sent that is known, nobody's change is undone unseen, and two at once never break."""

import pytest

from accounts.models import Team
from monitors import recording
from monitors.models import Monitor, Region
from tests.support.people import acme, ada, client_of
from tests.support.racing import race
from tests.support.watching import NOON, after, monitor, outcome, webhook

pytestmark = pytest.mark.django_db

MADE = {
    "monitors": ({"name": "Shop", "url": "https://example.com/"}, {"name": "Other"}),
    "channels": (
        {"name": "Hook", "kind": "webhook", "config": {"url": "https://example.com/"}},
        {"name": "Other"},
    ),
    "subscriptions": ({"scope": "all"}, {"min_severity": "critical"}),
    "message-templates": ({"kind": "opened", "subject": "Down"}, {"subject": "Oh no"}),
}


@pytest.fixture
def client():
    return client_of(ada())


@pytest.fixture(params=MADE)
def thing(request, client):
    """(address, what is shown, ETag, a change)"""
    given, change = MADE[request.param]
    if request.param == "subscriptions":
        given = given | {"channel": webhook(acme()).id}
    made = client.post(f"/api/v1/{request.param}/", given)
    assert made.status_code == 201, made.content
    url = f"/api/v1/{request.param}/{made.json()['id']}/"
    answer = client.get(url)
    return url, answer.json(), answer["ETag"], change


def test_every_object_that_can_be_changed_has_one(thing):
    _, _, tag, _ = thing
    assert tag.startswith('"')
    assert tag.endswith('"')
    assert len(tag) < 60


@pytest.mark.parametrize("header", ["{}", "*", '"x", {}', "W/{}"])
def test_spares_what_is_known(client, thing, header):
    url, _, tag, change = thing
    answer = client.get(url, HTTP_IF_NONE_MATCH=header.format(tag))
    assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", tag)
    client.patch(url, change)
    if header != "*":
        answer = client.get(url, HTTP_IF_NONE_MATCH=header.format(tag))
        assert answer.status_code == 200
        assert answer["ETag"] != tag


@pytest.mark.parametrize("verb", ["put", "patch", "delete"])
def test_refuses_to_undo_anothers_change(client, thing, verb):
    url, shown, tag, change = thing
    changed = client.patch(url, change, HTTP_IF_MATCH=tag)
    assert changed.status_code == 200
    before = client.get(url).json()
    body = {} if verb == "delete" else shown
    for stale in (tag, '"x"', "nonsense", "", f"W/{changed['ETag']}"):
        answer = getattr(client, verb)(url, body, HTTP_IF_MATCH=stale)
        assert (answer.status_code, answer["Content-Type"]) == (412, "application/problem+json"), stale
    assert client.get(url).json() == before
    answer = getattr(client, verb)(url, body, HTTP_IF_MATCH=f'"x", {changed["ETag"]}')
    assert answer.status_code in (200, 204), answer.content


@pytest.mark.parametrize("verb", ["patch", "delete"])
def test_changes_whatever_is_there_where_nothing_is_said(client, thing, verb):
    url, _, _, change = thing
    client.patch(url, change)
    assert getattr(client, verb)(url, {}).status_code in (200, 204)


def test_any_version_is_a_star(client, thing):
    url, _, _, change = thing
    assert client.patch(url, change, HTTP_IF_MATCH="*").status_code == 200


def test_a_change_answers_with_the_tag_that_a_get_has(client, thing):
    url, _, tag, change = thing
    changed = client.patch(url, change)
    assert changed["ETag"] == client.get(url)["ETag"] != tag


def test_a_change_that_changes_nothing_leaves_the_tag_to_monitors(client):
    made = client.post("/api/v1/monitors/", MADE["monitors"][0])
    assert client.patch(f"/api/v1/monitors/{made.json()['id']}/", {})["ETag"] == made["ETag"]


def test_regions_are_a_change(client):
    Region.objects.create(slug="eu", name="Europe")
    shop = monitor(acme())
    url = f"/api/v1/monitors/{shop.id}/"
    tag = client.get(url)["ETag"]
    client.patch(url, {"regions": ["default", "eu"]})
    assert client.patch(url, {"name": "x"}, HTTP_IF_MATCH=tag).status_code == 412


def test_a_probe_that_came_back_is_seen_but_is_no_edit(client):
    shop = monitor(acme())
    url = f"/api/v1/monitors/{shop.id}/"
    tag = client.get(url)["ETag"]
    recording.record([outcome(shop, at=NOON)], after(2))
    assert client.get(url, HTTP_IF_NONE_MATCH=tag).status_code == 200
    assert client.patch(url, {"name": "x"}, HTTP_IF_MATCH=tag).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_two_with_the_same_tag_one_wins():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    client = client_of(ada())
    made = client.post("/api/v1/monitors/", MADE["monitors"][0])
    url = f"/api/v1/monitors/{made.json()['id']}/"
    clients = [client_of(ada()) for _ in range(4)]
    answers = race(
        *[
            lambda n=n, each=each: each.patch(url, {"name": f"Shop {n}"}, HTTP_IF_MATCH=made["ETag"])
            for n, each in enumerate(clients)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    [won] = [answer for answer in answers if answer.status_code == 200]
    assert client.get(url).json()["name"] == won.json()["name"]


@pytest.mark.django_db(transaction=True)
def test_an_interval_and_a_timeout_at_once_never_break():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    one, other = client_of(ada()), client_of(ada())
    for _ in range(5):
        shop = monitor(Team.objects.get(slug="acme"), interval_seconds=60, timeout_seconds=10)
        url = f"/api/v1/monitors/{shop.id}/"
        answers = race(
            lambda url=url: one.patch(url, {"interval_seconds": 10}),
            lambda url=url: other.patch(url, {"timeout_seconds": 30}),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        shop = Monitor.objects.get(pk=shop.pk)
        assert shop.timeout_seconds <= shop.interval_seconds


@pytest.mark.django_db(transaction=True)
def test_a_change_and_a_deletion_at_once_never_break():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    one, other = client_of(ada()), client_of(ada())
    for _ in range(3):
        hook = webhook(Team.objects.get(slug="acme"))
        shop = monitor(Team.objects.get(slug="acme"))
        for url in (f"/api/v1/monitors/{shop.id}/", f"/api/v1/channels/{hook.id}/"):
            changed, deleted = race(
                lambda url=url: one.patch(url, {"name": "x", "enabled": False}),
                lambda url=url: other.delete(url),
            )
            assert changed.status_code in (200, 404)
            assert deleted.status_code == 204
