"""The outbox: whoever is to be told is told at least once, with one key, and nobody else is."""

import threading
from datetime import timedelta

import pytest
from celery import Celery, current_app
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from incidents.models import Incident
from notifications import delivering, outbox, services, tasks
from notifications.delivering import RETRY_SECONDS, retry_in
from notifications.messages import Message
from notifications.models import Channel, Delivery, MessageRecord, Subscription
from notifications.transports import DeliveryFailed
from tests.support import people, target
from tests.support.target import reply
from tests.support.watching import NOON, after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db
Status = Delivery.Status


def happened(shop, kind="opened", incident=None, **fields):
    """A message of an incident of a monitor, and the incident if there is none yet."""
    incident = incident or Incident.objects.create(
        team=shop.team,
        monitor=shop,
        monitor_name=shop.name,
        monitor_url=shop.url,
        reason="status",
        opened_at=NOON,
    )
    facts = {
        "team_id": shop.team_id, "at": NOON, "incident_id": incident.id, "incident_status": "open", "reason": "status",
        "opened_at": NOON, "monitor_id": shop.id, "monitor_name": shop.name, "monitor_url": shop.url,
        "tags": tuple(shop.tags),
    }  # fmt: skip
    return Message(kind=kind, **(facts | fields))


def told():
    return sorted(Delivery.objects.values_list("channel__name", "status"))


def named(channel, name):
    Channel.objects.filter(pk=channel.pk).update(name=name)
    return channel


def one_delivery(team, hook=None, now=NOON):
    """A delivery that is due, to a channel at `hook`."""
    channel = subscribed(webhook(team, url=hook.url("/hook") if hook else "http://127.0.0.1:9/"))
    outbox.enqueue([happened(monitor(team))], now)
    return Delivery.objects.get(channel=channel)


def another(delivery, team):
    """The same message, to a channel of its own."""
    return Delivery.objects.create(
        message=delivery.message,
        kind=delivery.kind,
        channel=webhook(team),
        next_attempt_at=NOON,
        created_at=NOON,
    )


def covered(leases):
    return set(Delivery.objects.filter(lease__in=leases).values_list("id", flat=True))


def work(now):
    """One round of what the notifier does, at a moment handed in; how each delivery ended."""
    return [work_off(lease, now) for lease in delivering.claim(now)]


def work_off(lease, now):
    parcel = delivering.begin(lease, now)
    return delivering.settle(parcel, tasks.send(parcel), now)[0] if parcel else None


# --- who is told ------------------------------------------------------------------------------------------------


def test_tells_each_channel_once_that_subscribes_and_nobody_elses(team):
    shop = monitor(team, tags=["prod", "shop"])
    other = monitor(team, name="Other")
    subscribed(named(webhook(team), "all"))
    subscribed(named(webhook(team), "tag"), scope="tag", tag="shop")
    subscribed(named(webhook(team), "other tag"), scope="tag", tag="Shop")
    subscribed(named(webhook(team), "monitor"), scope="monitor", monitor=shop)
    subscribed(named(webhook(team), "other monitor"), scope="monitor", monitor=other)
    named(webhook(team), "nothing")
    twice = subscribed(named(webhook(team), "twice"))
    subscribed(twice, scope="tag", tag="prod")
    subscribed(twice, scope="monitor", monitor=shop)
    globex = people.globex()
    subscribed(named(webhook(globex), "globex"))
    subscribed(named(webhook(globex), "globex tag"), scope="tag", tag="shop")
    # Another team's channel on our monitor: no view allows it, and the message's team still decides.
    subscribed(named(webhook(globex), "globex monitor"), scope="monitor", monitor=shop)

    outbox.enqueue([happened(shop)], NOON)
    assert told() == [("all", "pending"), ("monitor", "pending"), ("tag", "pending"), ("twice", "pending")]
    assert len(set(Delivery.objects.values_list("key", flat=True))) == 4


def test_keeps_teams_apart_when_both_have_something_to_tell(team):
    globex = people.globex()
    subscribed(named(webhook(team), "acme"))
    subscribed(named(webhook(globex), "globex"))
    outbox.enqueue([happened(monitor(team, name="Ours")), happened(monitor(globex, name="Theirs"))], NOON)
    rows = Delivery.objects.values_list(
        "channel__name", "message__subject", "message__payload__data__team__slug"
    )
    assert sorted(rows) == [
        ("acme", "DOWN: Ours (status)", "acme"),
        ("globex", "DOWN: Theirs (status)", "globex"),
    ]


def test_mutes_what_a_disabled_channel_would_have_got(team):
    services.update_channel(subscribed(named(webhook(team), "off")), {"enabled": False}, NOON)
    outbox.enqueue([happened(monitor(team))], NOON)
    assert told() == [("off", "muted")]
    assert delivering.claim(after(99_999)) == []


def test_writes_the_message_down_even_if_nobody_listens(team):
    outbox.enqueue([happened(monitor(team))], NOON)
    assert (MessageRecord.objects.count(), Delivery.objects.count()) == (1, 0)
    outbox.enqueue([], NOON)
    assert MessageRecord.objects.count() == 1


def test_tells_of_the_end_whoever_was_told_of_the_beginning(team):
    shop = monitor(team, tags=["old"])
    was = subscribed(named(webhook(team), "was told"), scope="tag", tag="old")
    muted = subscribed(named(webhook(team), "was muted"), scope="tag", tag="old")
    services.update_channel(muted, {"enabled": False}, NOON)
    outbox.enqueue([happened(shop)], NOON)
    incident = Incident.objects.get()

    Subscription.objects.all().delete()
    services.update_channel(muted, {"enabled": True}, NOON)
    subscribed(named(webhook(team), "listens now"))
    outbox.enqueue([happened(shop, "acknowledged", incident)], NOON)
    outbox.enqueue([happened(shop, "resolved", incident, resolved_at=NOON, resolution="recovered")], NOON)

    rows = Delivery.objects.filter(status="pending").values_list("channel__name", "message__kind")
    assert sorted(rows) == [
        ("listens now", "acknowledged"),
        ("listens now", "resolved"),
        ("was muted", "opened"),  # when it was enabled again: the incident was open still
        ("was muted", "resolved"),
        ("was told", "opened"),
        ("was told", "resolved"),
    ]
    assert was.deliveries.count() == 2


def test_takes_the_same_number_of_statements_for_one_message_as_for_fifty(
    team, django_assert_max_num_queries
):
    for _ in range(3):
        subscribed(webhook(team))
    shops = [monitor(team, name=f"Shop {n}") for n in range(50)]
    messages = [happened(shop, kind="resolved", resolved_at=NOON) for shop in shops]
    with django_assert_max_num_queries(7):
        outbox.enqueue(messages, NOON)
    assert Delivery.objects.count() == 150


def test_survives_a_channel_deleted_between_being_chosen_and_being_told(team):
    subscribed(named(webhook(team), "stays"))
    leaving = subscribed(webhook(team))

    def delete_first(execute, sql, params, many, context):
        if sql.startswith("SELECT") and 'FROM "notifications_channel" WHERE' in sql:
            execute(
                "DELETE FROM notifications_subscription WHERE channel_id = %s", [leaving.id], False, context
            )
            execute("DELETE FROM notifications_channel WHERE id = %s", [leaving.id], False, context)
        return execute(sql, params, many, context)

    messages = [happened(monitor(team))]
    with connection.execute_wrapper(delete_first):
        outbox.enqueue(messages, NOON)
    assert told() == [("stays", "pending")]


def test_sends_a_test_also_to_a_channel_that_is_disabled_and_subscribes_to_nothing(team, hook):
    channel = webhook(team, url=hook.url())
    services.update_channel(channel, {"enabled": False}, NOON)
    channel.refresh_from_db()
    delivery = services.test(channel, NOON)
    assert work(NOON) == ["sent"]
    assert (hook.received[0].json["type"], hook.received[0].id) == ("test", delivery.key)


# --- lease ------------------------------------------------------------------------------------------------------


def test_leases_what_is_due_oldest_first_and_leaves_the_rest(team):
    delivery = one_delivery(team)
    rows = {delivery.id: 30}
    for seconds in (10, 20, 50):
        copy = another(delivery, team)
        rows[copy.id] = seconds
    for pk, seconds in rows.items():
        Delivery.objects.filter(pk=pk).update(next_attempt_at=after(seconds))
    by_age = sorted(rows, key=rows.get)

    assert delivering.claim(after(9)) == []
    assert covered(delivering.claim(after(20))) == set(by_age[:2])
    assert covered(delivering.claim(after(30))) == {by_age[2]}
    assert delivering.claim(after(30)) == []
    assert Delivery.objects.get(pk=by_age[3]).status == "pending"


@pytest.mark.parametrize("status", ["sent", "dead", "muted"])
def test_never_leases_what_has_ended(team, status):
    delivery = one_delivery(team)
    Delivery.objects.filter(pk=delivery.pk).update(status=status, sent_at=NOON, lease=1)
    assert delivering.claim(after(999_999)) == []


def test_takes_up_again_what_was_leased_and_not_heard_of(team):
    one_delivery(team)
    [lost] = delivering.claim(NOON)
    assert delivering.claim(after(delivering.LEASE_SECONDS - 1)) == []
    [again] = delivering.claim(after(delivering.LEASE_SECONDS + 1))
    assert again != lost
    assert delivering.begin(lost, after(16)) is None, "the late one finds its token gone"
    assert delivering.begin(again, after(16)) is not None


def test_waits_longer_for_a_send_that_began(team):
    one_delivery(team)
    [lease] = delivering.claim(NOON)
    assert delivering.begin(lease, after(10))
    assert delivering.claim(after(10 + delivering.SEND_SECONDS - 1)) == []
    assert len(delivering.claim(after(10 + delivering.SEND_SECONDS + 1))) == 1


@pytest.mark.django_db(transaction=True)
def test_leases_nothing_twice_when_two_look_at_once(team):
    delivery = one_delivery(team)
    for _ in range(3):
        another(delivery, team)
    claimed = []
    barrier = threading.Barrier(2)

    def claim():
        barrier.wait(10)
        claimed.append(delivering.claim(NOON))
        connection.close()

    in_a_thread(claim, claim)
    assert sorted(map(len, claimed)) == [0, 4]


@pytest.mark.django_db(transaction=True)
def test_begins_a_lease_once_when_its_message_was_delivered_twice(team):
    one_delivery(team)
    [lease] = delivering.claim(NOON)
    parcels = []
    barrier = threading.Barrier(2)

    def begin():
        barrier.wait(10)
        parcels.append(delivering.begin(lease, NOON))
        connection.close()

    in_a_thread(begin, begin)
    assert sorted(parcel is None for parcel in parcels) == [False, True]
    assert Delivery.objects.get().attempts == 1


def in_a_thread(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


# --- send and settle --------------------------------------------------------------------------------------------


def test_sends_and_writes_down_that_it_did(team, hook):
    delivery = one_delivery(team, hook)
    assert work(after(3)) == ["sent"]
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.sent_at, delivery.last_error) == (
        "sent",
        1,
        after(3),
        "",
    )
    assert (delivery.next_attempt_at, delivery.leased_until) == (None, None)
    assert [got.id for got in hook.received] == [delivery.key]
    assert work(after(999_999)) == []


def test_refuses_a_token_that_is_not_the_leases(team):
    one_delivery(team)
    assert delivering.begin(1, NOON) is None, "never leased"
    [lease] = delivering.claim(NOON)
    assert delivering.begin(lease + 1, NOON) is None
    assert delivering.begin(lease, NOON) is not None
    assert delivering.begin(lease, NOON) is None, "a lease is begun once"


def test_sends_nothing_to_a_channel_that_was_disabled_meanwhile(team, hook):
    delivery = one_delivery(team, hook)
    services.update_channel(delivery.channel, {"enabled": False}, NOON)
    assert work(NOON) == [None]
    delivery.refresh_from_db()
    assert (delivery.status, delivery.last_error) == ("dead", "channel disabled: by hand")
    assert (delivery.attempts, hook.received) == (0, [])


RETRIES = [
    # answer, seconds until the next attempt: at least, at most
    (reply(500), 4, 6),
    (reply(429), 4, 6),
    (reply(429, headers=[("Retry-After", "1")]), 4, 6),
    (reply(429, headers=[("Retry-After", "600")]), 600, 600),
    (reply(503, headers=[("Retry-After", "999999999")]), 3600, 3600),
    (reply(503, headers=[("Retry-After", "-1")]), 4, 6),
    (target.hang_up, 4, 6),
]


@pytest.mark.parametrize(("answer", "least", "most"), RETRIES)
def test_tries_again_when_the_schedule_or_the_receiver_says(team, hook, answer, least, most):
    delivery = one_delivery(team, hook)
    hook.script(answer)
    assert work(NOON) == ["pending"]
    delivery.refresh_from_db()
    assert least <= (delivery.next_attempt_at - NOON).total_seconds() <= most
    assert (delivery.attempts, delivery.leased_until) == (1, None)
    assert delivery.last_error.startswith("It ")
    assert work(delivery.next_attempt_at) == ["sent"]
    assert Delivery.objects.get().last_error == ""


def test_gives_up_at_once_on_a_permanent_failure(team, hook):
    delivery = one_delivery(team, hook)
    hook.script(reply(404, b"no such hook"))
    assert work(NOON) == ["dead"]
    delivery.refresh_from_db()
    assert (delivery.last_error, delivery.attempts) == ("It answered 404: no such hook", 1)
    assert (delivery.next_attempt_at, delivery.leased_until, delivery.sent_at) == (None, None, None)
    assert Channel.objects.get().enabled


def test_disables_a_channel_whose_place_is_gone(team, hook):
    delivery = one_delivery(team, hook)
    hook.script(reply(410, b"moved away " * 100))
    assert work(after(1)) == ["dead"]
    channel = Channel.objects.get()
    assert (channel.enabled, channel.updated_at) == (False, after(1))
    assert channel.disabled_reason.startswith("It answered 410: moved away")
    assert outbox.replay(Delivery.objects.all(), NOON) == 1
    assert work(NOON) == [None]
    delivery.refresh_from_db()
    assert delivery.last_error.startswith("channel disabled: It answered 410")
    assert len(hook.received) == 1


FAILURES = [
    None,
    DeliveryFailed("late"),
    DeliveryFailed("late", permanent=True),
    DeliveryFailed("late", gone=True),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_changes_nothing_when_the_lease_is_anothers_by_now(team, failure):
    delivery = one_delivery(team)
    [slow] = delivering.claim(NOON)
    parcel = delivering.begin(slow, NOON)
    [quick] = delivering.claim(after(60))
    before = Delivery.objects.values().get()
    assert delivering.settle(parcel, failure, after(61))[0] == "superseded"
    assert Delivery.objects.values().get() == before
    assert Channel.objects.get().enabled
    assert delivering.begin(quick, after(61)).key == delivery.key


def test_settles_late_if_nobody_took_it_up(team):
    one_delivery(team)
    [lease] = delivering.claim(NOON)
    parcel = delivering.begin(lease, NOON)
    assert delivering.settle(parcel, None, after(3600))[0] == "sent"


def test_ends_dead_after_the_whole_schedule_with_one_key_throughout(team, hook):
    hook.otherwise = reply(500, b"oops")
    delivery = one_delivery(team, hook)
    now, moments = NOON, []
    while delivery.status != "dead":
        moments.append(now)
        assert len(moments) <= len(RETRY_SECONDS) + 1
        assert work(now - timedelta(milliseconds=1)) == [], "not before its time"
        [status] = work(now)
        delivery.refresh_from_db()
        assert delivery.status == status
        now = delivery.next_attempt_at
    waits = [(b - a).total_seconds() for a, b in zip(moments, moments[1:], strict=False)]
    assert len(waits) == len(RETRY_SECONDS)
    for waited, planned in zip(waits, RETRY_SECONDS, strict=True):
        assert planned * 0.8 <= waited <= planned * 1.2
    assert len(hook.received) == delivery.attempts == len(RETRY_SECONDS) + 1
    assert {got.id for got in hook.received} == {delivery.key}
    stamps = [int(got.headers["webhook-timestamp"]) for got in hook.received]
    assert stamps == [int(moment.timestamp()) for moment in moments]
    assert delivery.last_error == "It answered 500: oops"
    assert work(after(10_000_000)) == []

    # … and somebody mends the receiver.
    hook.otherwise = reply(200)
    assert outbox.replay(Delivery.objects.all(), after(10_000_000)) == 1
    assert work(after(10_000_000)) == ["sent"]
    assert hook.received[-1].id == delivery.key
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts) == ("sent", 1)


def test_tells_once_in_eleven_attempts_what_was_refused_ten_times(team, hook):
    hook.script(*[reply(500)] * 10)
    delivery = one_delivery(team, hook)
    now = NOON
    while delivery.status != "sent":
        work(now)
        delivery.refresh_from_db()
        now = delivery.next_attempt_at
    assert [seen.id for seen in hook.received] == [delivery.key] * 11
    assert delivery.attempts == 11
    assert list(delivery.tries.values_list("outcome", flat=True)) == ["failed"] * 10 + ["sent"]


def test_delivers_after_an_hour_in_which_nobody_was_there(team, hook):
    channel = subscribed(webhook(team, url="http://127.0.0.1:9/"))  # nobody listens on that port
    outbox.enqueue([happened(monitor(team))], NOON)
    delivery = Delivery.objects.get(channel=channel)
    while delivery.next_attempt_at < after(3600):
        assert work(delivery.next_attempt_at) == ["pending"]
        delivery.refresh_from_db()
    Channel.objects.update(config={"url": hook.url()})  # and now somebody does
    assert work(delivery.next_attempt_at) == ["sent"]
    assert [seen.id for seen in hook.received] == [delivery.key]


def test_replays_only_what_is_dead(team):
    delivery = one_delivery(team)
    for status in Status:
        Delivery.objects.filter(pk=delivery.pk).update(
            status=status, sent_at=NOON, lease=1, leased_until=NOON
        )
        assert outbox.replay(Delivery.objects.all(), NOON) == (status == "dead")


def test_gives_up_on_what_kills_its_process_every_time(team):
    delivery = one_delivery(team)
    now, begun = NOON, 0
    for _ in range(len(RETRY_SECONDS) + 10):
        begun += sum(delivering.begin(lease, now) is not None for lease in delivering.claim(now))
        now += timedelta(seconds=delivering.SEND_SECONDS + 1)
    delivery.refresh_from_db()
    assert (begun, delivery.status) == (len(RETRY_SECONDS) + 1, "dead")
    assert "in the middle of the last attempt" in delivery.last_error


BUGS = [
    # what is wrong with the channel's row, a part of the sentence
    ({"config": {}}, "KeyError"),
    ({"config": {"url": 5}}, "could not"),
    ({"kind": "pigeon"}, "KeyError"),
    ({"sealed_secrets": "from another key"}, "SealBroken"),
    ({"sealed_secrets": ""}, "KeyError"),
    ({"config": 5}, "TypeError"),
]


@pytest.mark.parametrize(("wrong", "part"), BUGS)
def test_costs_one_attempt_when_we_are_the_ones_who_fail(team, hook, wrong, part):
    delivery = one_delivery(team, hook)
    right = Channel.objects.values("config", "kind", "sealed_secrets").get()
    Channel.objects.update(**wrong)
    assert work(NOON) == ["pending"]
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.leased_until) == (1, None)
    assert part in delivery.last_error
    Channel.objects.update(**right)
    assert work(delivery.next_attempt_at) == ["sent"]


def test_sends_to_others_while_one_channel_is_broken(team, hook):
    broken = one_delivery(team, hook).channel
    subscribed(webhook(team, url=hook.url()))
    Channel.objects.filter(pk=broken.pk).update(sealed_secrets="broken")
    outbox.enqueue([happened(monitor(team, name="Second"))], NOON)
    assert sorted(work(NOON)) == ["pending", "pending", "sent"]


# --- the decision -------------------------------------------------------------------------------------------------


@given(
    attempts=st.integers(1, 40),
    jitter=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.floats(0, 1e15),
    permanent=st.booleans(),
    gone=st.booleans(),
)
def test_waits_within_bounds_and_gives_up_exactly_when_it_must(
    attempts, jitter, retry_after, permanent, gone
):
    failure = DeliveryFailed("no", permanent=permanent, retry_after=retry_after, gone=gone)
    wait = retry_in(failure, attempts, jitter)
    assert (wait is None) == (permanent or gone or attempts > len(RETRY_SECONDS))
    if wait is not None:
        planned = RETRY_SECONDS[attempts - 1]
        assert 0.8 * planned <= wait <= max(1.2 * planned, delivering.RETRY_AFTER_MOST_SECONDS)
        assert wait >= min(retry_after or 0, delivering.RETRY_AFTER_MOST_SECONDS)


# --- nudge --------------------------------------------------------------------------------------------------------


@pytest.fixture
def broker_away():
    """The current app, for the test's length, is one whose broker refuses connections."""
    before = current_app._get_current_object()
    app = Celery("away", broker="redis://127.0.0.1:9/0", set_as_current=False, fixups=[])
    app.conf.task_publish_retry_policy = before.conf.task_publish_retry_policy
    app.set_current()
    yield app
    before.set_current()
    app.close()


@pytest.mark.django_db(transaction=True)
def test_loses_nothing_when_the_broker_is_away(team, hook, broker_away):
    delivery = one_delivery(team, hook)  # commits, and nudges
    assert delivery.status == "pending"
    assert services.test(delivery.channel, NOON).status == "pending"
    assert work(NOON) == ["sent", "sent"]
