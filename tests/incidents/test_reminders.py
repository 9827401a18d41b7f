"""It is still down: said again, to the channels that want to hear it, until somebody is on it."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction

from incidents import services, tasks
from incidents.models import Incident
from notifications.models import Channel, Delivery, Subscription
from tests.incidents.test_services import change
from tests.support.people import acme, bob, globex
from tests.support.watching import after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db

EVERY = 10  # minutes


def minutes(number):
    return after(60 * number)


@pytest.fixture
def hook() -> Channel:
    channel = subscribed(webhook(acme()), scope="all")
    return changed(channel, reminder_minutes=EVERY)


def changed(channel, **fields):
    Channel.objects.filter(id=channel.id).update(**fields)
    channel.refresh_from_db()
    return channel


def outage(team=None, told="sent", **fields) -> Incident:
    """An incident that was opened at noon, and its channels told within the second."""
    shop = monitor(team or acme(), **fields)
    services.apply([change(shop, "down")], after(0))
    deliver(told, after(1))
    return Incident.objects.get(monitor=shop)


def deliver(status, at):
    """Whatever waits is told; or not."""
    waiting = Delivery.objects.filter(status="pending")
    if status == "sent":
        waiting.update(status="sent", sent_at=at, next_attempt_at=None)
    elif status == "sending":
        waiting.update(status="sending", lease=1, leased_until=at)
    elif status != "pending":
        waiting.update(status=status, next_attempt_at=None)


def reminders():
    return list(
        Delivery.objects.filter(kind="reminder").order_by("id").values_list("incident_id", "channel_id")
    )


def test_says_again_that_it_is_still_down(hook):
    incident = outage(runbook_url="https://wiki.example/shop")
    assert services.remind(minutes(EVERY)) == 0, "told a second after noon: not yet"
    assert services.remind(minutes(EVERY) + timedelta(seconds=2)) == 1
    delivery = Delivery.objects.get(kind="reminder")
    assert (delivery.incident, delivery.channel, delivery.status) == (incident, hook, "pending")
    assert delivery.message.subject == "STILL DOWN: Shop (status)"
    assert delivery.message.text.startswith("Shop is still down, for 10 min 2 s.\nIt answered 500.")
    assert delivery.message.payload["type"] == "incident.reminder"
    assert delivery.message.payload["data"]["monitor"]["runbook_url"] == "https://wiki.example/shop"


def test_goes_on_until_somebody_is_on_it(hook):
    incident = outage()
    said = []
    for minute in range(60):
        if services.remind(minutes(minute)):
            said.append(minute)
            deliver("sent", minutes(minute))
        if minute == 45:
            services.acknowledge(incident, bob(), minutes(minute))
    assert said == [11, 21, 31, 41]


@pytest.mark.parametrize("end", ["acknowledge", "resolve"])
def test_stops_for_what_people_do(hook, end):
    incident = outage()
    getattr(services, end)(incident, bob(), minutes(5))
    assert services.remind(minutes(60)) == 0


def test_stops_when_it_answers_again(hook):
    incident = outage()
    services.apply([change(incident.monitor, "up", minutes(5))], minutes(5))
    assert services.remind(minutes(60)) == 0


@pytest.mark.parametrize("status", ["pending", "sending", "dead", "muted"])
def test_does_not_remind_of_what_was_never_told(hook, status):
    outage(told=status)
    assert services.remind(minutes(60)) == 0


@pytest.mark.parametrize("status", ["pending", "sending"])
def test_does_not_pile_reminders_up_before_a_channel_that_is_away(hook, status):
    outage()
    assert services.remind(minutes(60)) == 1
    deliver(status, minutes(60))
    assert services.remind(minutes(600)) == 0
    Delivery.objects.filter(kind="reminder").update(
        status="sent", sent_at=minutes(600), lease=None, leased_until=None, next_attempt_at=None
    )
    assert services.remind(minutes(605)) == 0
    assert services.remind(minutes(611)) == 1


def test_tries_anew_when_a_reminder_died(hook):
    outage()
    services.remind(minutes(60))
    deliver("dead", minutes(60))
    assert services.remind(minutes(65)) == 0
    assert services.remind(minutes(71)) == 1


WANT_NONE = [
    # what a channel is like that is not reminded
    {"reminder_minutes": None},
    {"enabled": False},
]


@pytest.mark.parametrize("fields", WANT_NONE)
def test_asks_each_channel_what_it_wants(hook, fields):
    other = changed(subscribed(webhook(acme()), scope="all"), reminder_minutes=60)
    outage()
    changed(hook, **fields)
    assert services.remind(minutes(30)) == 0
    assert services.remind(minutes(61)) == 1
    assert [channel for _, channel in reminders()] == [other.id]


def test_reminds_only_those_who_were_told(hook):
    """A subscription that came later, and another team's channel, have nothing to be reminded of."""
    outage()
    for team in (acme(), globex()):
        changed(subscribed(webhook(team), scope="all"), reminder_minutes=EVERY)
    services.remind(minutes(60))
    assert [channel for _, channel in reminders()] == [hook.id]


HOURS = [
    # the subscription's, as its clock shows them; the reminders of two hours, from noon
    ({}, 11),
    ({"from_time": minutes(-60).time(), "until_time": minutes(60).time()}, 5),
    ({"from_time": minutes(70).time(), "until_time": minutes(90).time()}, 2),
    ({"days": [(after(0).weekday() + 2) % 7]}, 0),
]


@pytest.mark.parametrize(("fields", "said"), HOURS)
def test_does_not_remind_at_night(hook, fields, said):
    outage()
    Subscription.objects.filter(channel=hook).update(**fields)
    count = 0
    for minute in range(0, 120):
        count += services.remind(minutes(minute))
        deliver("sent", minutes(minute))
    assert count == said


def test_stops_with_the_subscription(hook):
    outage()
    Subscription.objects.filter(channel=hook).delete()
    assert services.remind(minutes(60)) == 0


def test_asks_the_channel_and_not_the_kinds_of_a_subscription(hook):
    outage()
    Subscription.objects.filter(channel=hook).update(kinds=["opened", "resolved"])
    assert services.remind(minutes(60)) == 1


def test_reminds_of_the_oldest_first_and_of_the_rest_at_the_next_look(hook):
    outages = [outage(name=f"Shop {n}").id for n in range(5)]
    assert [services.remind(minutes(60), at_once=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [incident for incident, _ in reminders()] == outages


def test_leaves_alone_what_somebody_just_changes(hook, transactional_db):
    """The row is locked by a person's deed that has not ended: skipped, and asked for again at the next look."""
    incident = outage()
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                Incident.objects.select_for_update().get(id=incident.id)
                locked.set()
                done.wait(30)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(30)
    assert services.remind(minutes(60)) == 0
    done.set()
    holder.join(30)
    assert services.remind(minutes(60)) == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_runs_at_once_one_reminds(hook):
    for n in range(5):
        outage(name=f"Shop {n}")
    begun = threading.Barrier(4, timeout=30)

    def run() -> None:
        try:
            begun.wait()
            services.remind(minutes(60))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(reminders()) == len(set(reminders())) == 5


def test_is_asked_for_by_beat(hook, settings):
    """The task, with the clock it reads itself: the noon of these tests is more than an hour ago."""
    outage()
    tasks.remind(asked_by="a newer publisher")
    assert len(reminders()) == 1


def test_costs_two_questions_when_nobody_is_to_be_reminded(hook, django_assert_num_queries):
    for n in range(20):
        outage(name=f"Shop {n}")
    with django_assert_num_queries(2 + 2):  # the lock, and who is due; a test's own savepoint
        services.remind(minutes(5))
