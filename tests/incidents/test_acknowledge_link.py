"""The signed link of a message: it asks, and a button acknowledges what is still open."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from healthmon.lib.clock import now as read_clock
from incidents import services
from incidents.models import Incident
from notifications import delivering, links
from notifications.models import Delivery
from tests.incidents.test_services import change
from tests.support.people import acme, bob
from tests.support.watching import after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db

ASKED = "Acknowledge this incident?"


@pytest.fixture
def channel():
    return subscribed(webhook(acme()), scope="all")


def outage(name="Shop", **fields) -> Incident:
    shop = monitor(acme(), name=name, **fields)
    services.apply([change(shop, "down")], after(1))
    return Incident.objects.get(monitor=shop)


@pytest.fixture
def incident() -> Incident:
    return outage()


@pytest.fixture
def browser() -> Client:
    """One that has never been here, and whose forms need their token."""
    return Client(enforce_csrf_checks=True)


def path(*incidents, channel=None, now=None):
    url = links.acknowledge_url(
        [i.id for i in incidents], channel.id if channel else None, now or read_clock()
    )
    return "/acknowledge/" + url.rpartition("/acknowledge/")[2]


def press(browser, where):
    """Open the page as a person does, and press its button."""
    page = browser.get(where)
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    return browser.post(where, {"csrfmiddlewaretoken": token})


def title(page):
    return unescape(re.search(r"<h1>(.*)</h1>", page.content.decode())[1])


def statuses():
    return list(Incident.objects.order_by("id").values_list("status", flat=True))


def test_asks_before_it_acknowledges(browser, incident, channel):
    where = path(incident, channel=channel)
    page = browser.get(where)
    assert (page.status_code, title(page)) == (200, ASKED)
    assert "Shop" in page.content.decode()
    assert statuses() == ["open"]

    page = press(browser, where)
    assert (page.status_code, title(page)) == (200, "Acknowledged")
    incident.refresh_from_db()
    assert (incident.status, incident.acknowledged_by) == ("acknowledged", None)
    event = incident.events.get(kind="acknowledged")
    assert (event.by, event.text) == (None, "by link sent to Hook")
    told = Delivery.objects.get(kind="acknowledged").message
    assert "acknowledged by link sent to Hook," in told.text


def test_comes_with_the_message_that_asks_for_somebody(browser, channel):
    first, second = outage("Shop"), outage("Cart")
    services.resolve(first, bob(), after(2))
    sent = {}
    for _ in range(2):  # a resolve waits for its opening
        for lease in delivering.claim(read_clock()):
            parcel = delivering.begin(lease, read_clock())
            envelope = delivering.envelope(parcel)
            sent[envelope.kind, envelope.incident_id] = dict(envelope.links)
            delivering.settle(parcel, None, read_clock())
    assert {told: "Acknowledge" in links for told, links in sent.items()} == {
        ("opened", first.id): True,
        ("opened", second.id): True,
        ("resolved", first.id): False,
    }
    where = "/acknowledge/" + sent["opened", second.id]["Acknowledge"].rpartition("/acknowledge/")[2]
    press(browser, where)
    assert statuses() == ["resolved", "acknowledged"]


@pytest.mark.parametrize("verb", ["get", "head"])
def test_does_nothing_for_those_who_only_look(browser, incident, verb):
    """Scanners of mail follow every link, some of them a dozen times."""
    for _ in range(3):
        assert getattr(browser, verb)(path(incident)).status_code == 200
    assert statuses() == ["open"]
    assert not Delivery.objects.filter(kind="acknowledged").exists()


def test_does_nothing_without_the_forms_token(browser, incident):
    where = path(incident)
    assert browser.post(where).status_code == 403
    browser.get(where)
    assert browser.post(where, {"csrfmiddlewaretoken": "x" * 64}).status_code == 403
    assert statuses() == ["open"]


@pytest.mark.parametrize("verb", ["put", "patch", "delete", "options", "trace"])
def test_knows_no_other_verbs(incident, verb):
    assert getattr(Client(), verb)(path(incident)).status_code == 405


def test_acknowledges_all_that_it_names_and_no_other(browser, channel):
    first, _, third = outage("Shop"), outage("Cart"), outage("Blog")
    where = path(first, third, channel=channel)
    assert title(browser.get(where)) == "Acknowledge 2 incidents?"
    page = press(browser, where).content.decode()
    assert statuses() == ["acknowledged", "open", "acknowledged"]
    assert "Shop" in page
    assert "Blog" in page
    assert "Cart" not in page
    told = Delivery.objects.filter(kind="acknowledged")
    assert {delivery.incident_id for delivery in told} == {first.id, third.id}


def test_needs_as_many_statements_for_many_as_for_one(browser, channel, django_assert_max_num_queries):
    outages = [outage(f"Shop {n}") for n in range(30)]
    where = path(*outages, channel=channel)
    with django_assert_max_num_queries(25):
        press(browser, where)
    assert statuses() == ["acknowledged"] * 30


def test_pressing_twice_is_told_once(browser, incident, channel):
    where = path(incident, channel=channel)
    press(browser, where)
    incident.refresh_from_db()
    acknowledged_at = incident.acknowledged_at
    page = browser.get(where)
    assert (page.status_code, title(page)) == (200, "Acknowledged")
    assert b"<button" not in page.content
    token = browser.cookies["csrftoken"].value
    assert browser.post(where, {"csrfmiddlewaretoken": token}).status_code == 200
    incident.refresh_from_db()
    assert incident.acknowledged_at == acknowledged_at
    assert Delivery.objects.filter(kind="acknowledged").count() == 1


def test_leaves_to_whom_acknowledged_what_they_did(browser, incident):
    where = path(incident)
    services.acknowledge(incident, bob(), after(5))
    page = browser.get(where)
    assert title(page) == "Acknowledged"
    incident.refresh_from_db()
    assert incident.acknowledged_by == bob()


def test_says_when_it_is_over(browser, incident):
    where = path(incident)
    services.apply([change(incident.monitor, "up", after(90))], after(91))
    page = browser.get(where)
    assert (page.status_code, title(page)) == (200, "Nothing left to acknowledge")
    assert "resolved" in page.content.decode()
    assert b"<button" not in page.content


def test_acknowledges_what_is_left_when_the_rest_is_over(browser):
    first, second = outage("Shop"), outage("Cart")
    where = path(first, second)
    page = browser.get(where)
    services.apply([change(first.monitor, "up", after(90))], after(91))
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())[1]
    page = browser.post(where, {"csrfmiddlewaretoken": token})
    assert (page.status_code, title(page)) == (200, "Acknowledged")
    assert statuses() == ["resolved", "acknowledged"]


def test_is_over_after_seven_days(browser, incident):
    page = browser.get(path(incident, now=read_clock() - links.LASTS))
    assert (page.status_code, title(page)) == (410, "This link is too old")
    assert b"<button" not in page.content


@pytest.mark.parametrize("token", ["x", "W10.x", "W10.jx_K1Jpu7uXk", "x" * 5_000, "%00", "..%2f"])
@pytest.mark.parametrize("verb", ["get", "post"])
def test_is_friendly_to_what_is_no_link_of_ours(token, verb):
    page = getattr(Client(), verb)(f"/acknowledge/{token}/")
    assert page.status_code == 404
    assert "text/html" in page["Content-Type"]


def test_is_not_opened_by_another_installations_link(browser, incident):
    where = path(incident)
    swapped = where.replace(where.split("/")[2][:6], path(outage("Cart")).split("/")[2][:6], 1)
    for wrong in (swapped[:-2] + "/", where.rstrip("/")[:-1] + "/"):
        page = browser.get(wrong)
        assert (page.status_code, title(page)) == (404, "This link does not work")
    assert statuses() == ["open", "open"]


def test_goes_with_its_channel(browser, incident, channel):
    """Whoever took the channel away wanted its readers to do no more."""
    where = path(incident, channel=channel)
    channel.delete()
    page = browser.get(where)
    assert (page.status_code, title(page)) == (404, "This link does not work any more")
    assert b"Shop" not in page.content
    token = browser.get(path(incident)) and browser.cookies["csrftoken"].value
    assert browser.post(where, {"csrfmiddlewaretoken": token}).status_code == 404
    assert statuses() == ["open"]


def test_goes_with_its_incidents(browser, incident):
    where = path(incident)
    incident.delete()
    assert browser.get(where).status_code == 404


def test_shows_names_as_they_were_written(browser):
    evil = "<script>alert(1)</script>\"'{{ 7*7 }}"
    page = browser.get(path(outage(evil))).content.decode()
    assert "<script" not in page
    assert evil in unescape(page)


def test_is_a_page_that_runs_and_loads_nothing(browser, incident):
    page = browser.get(path(incident))
    policy = page["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "no-store" in page["Cache-Control"]
    assert page["X-Robots-Tag"] == "noindex, nofollow"
    assert page["Referrer-Policy"] == "same-origin"
    html = page.content.decode()
    assert not re.search(r"<script|<style|style=|\son\w+=|https?://", html)
    [sheet] = re.findall(r'<link rel="stylesheet" href="/static/([^"]+)"', html)
    assert finders.find(sheet)


def test_needs_no_account_and_opens_no_other_door(browser, incident):
    press(browser, path(incident))
    assert browser.get(f"/admin/incidents/incident/{incident.id}/change/").status_code == 302
    assert browser.get("/api/v1/incidents/").status_code == 401


def test_lasts_as_long_as_it_says(browser, incident):
    made = read_clock() - links.LASTS + timedelta(minutes=5)
    assert browser.get(path(incident, now=made)).status_code == 200
