"""How deliveries are worked off: shares, rates, groups, order, and what a channel's health does to them."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction

from incidents.models import Incident
from notifications import delivering, outbox, services
from notifications.delivering import (
    AT_ONCE,
    FAILING_AFTER,
    OF_A_CHANNEL,
    OF_A_DESTINATION,
    OF_ALL_SUSPECTS,
    SUSPECT_AFTER,
    begin,
    claim,
    envelope,
    settle,
)
from notifications.messages import Message
from notifications.models import Channel, Delivery, DeliveryAttempt, MessageRecord
from notifications.transports import DeliveryFailed
from tests.support import people
from tests.support.watching import NOON, after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db
BROKEN = DeliveryFailed("It answered 500.")


@pytest.fixture
def shop(team):
    return monitor(team)


def opened(shop, name="Shop", **fields):
    incident = Incident.objects.create(
        team=shop.team, monitor=None, monitor_name=name, monitor_url=shop.url, reason="status", opened_at=NOON
    )
    facts = {
        "team_id": shop.team_id, "at": NOON, "incident_id": incident.id, "incident_status": "open", "reason": "status",
        "opened_at": NOON, "monitor_id": incident.id, "monitor_name": name, "monitor_url": shop.url,
    }  # fmt: skip
    return Message(kind="opened", **(facts | fields))


def resolved(message):
    return Message(
        kind="resolved",
        team_id=message.team_id,
        at=after(1),
        incident_id=message.incident_id,
        opened_at=NOON,
        resolved_at=after(1),
        monitor_id=message.monitor_id,
        monitor_name=message.monitor_name,
        resolution="recovered",
    )


def channel(team, host="a.example", **columns):
    made = webhook(team)
    Channel.objects.filter(pk=made.pk).update(destination=f"{host}:443", **columns)
    made.refresh_from_db()
    return made


def for_people(team, **columns):
    return channel(team, **({"gather_seconds": 3} | columns))


def due(channel, shop, count, now=NOON):
    return [outbox.enqueue_to(opened(shop, f"Shop {n}"), {channel.id}, now)[0] for n in range(count)]


def ids(parcel):
    return {piece.delivery_id for piece in parcel.pieces}


def of(leases):
    """How many leases each channel has."""
    found = {}
    for channel_id, lease in Delivery.objects.filter(lease__in=leases).values_list("channel", "lease"):
        found.setdefault(channel_id, set()).add(lease)
    return {channel_id: len(leases) for channel_id, leases in found.items()}


# --- shares ------------------------------------------------------------------------------------------------------


def test_gives_a_channel_its_share_and_another_its_own_however_much_waits_for_the_first(team, shop):
    flooded, quiet = channel(team, "dead.example"), channel(team, "well.example")
    due(flooded, shop, 40)
    due(quiet, shop, 1)
    assert of(claim(NOON)) == {flooded.id: OF_A_CHANNEL, quiet.id: 1}
    due(quiet, shop, 1)
    assert of(claim(NOON)) == {quiet.id: 1}, "the first has its share in hand"


def test_gives_channels_of_one_host_one_share_together(team, shop):
    for _ in range(10):
        due(channel(team, "dead.example"), shop, 3)
    well = channel(team, "well.example")
    due(well, shop, 1)
    leases = of(claim(NOON))
    assert leases.pop(well.id) == 1
    assert sum(leases.values()) == OF_A_DESTINATION
    assert claim(NOON) == []


def test_gives_a_suspect_one_turn_at_a_time_and_all_suspects_together_a_part(team, shop):
    suspects = [channel(team, f"{n}.example", failures=SUSPECT_AFTER) for n in range(OF_ALL_SUSPECTS + 3)]
    for suspect in suspects:
        due(suspect, shop, 2)
    well = channel(team, "well.example")
    due(well, shop, 1)
    leases = of(claim(NOON))
    assert leases.pop(well.id) == 1
    assert list(leases.values()) == [1] * OF_ALL_SUSPECTS


def test_leases_no_more_than_can_be_begun_soon(team, shop):
    for n in range(AT_ONCE // OF_A_CHANNEL + 5):
        due(channel(team, f"{n}.example"), shop, OF_A_CHANNEL)
    assert len(claim(NOON)) == AT_ONCE
    assert claim(NOON) == []


def test_hands_its_share_on_to_the_next_of_the_same_channel(team, shop):
    flooded = channel(team)
    rows = due(flooded, shop, OF_A_CHANNEL + 2)
    first, *_ = claim(NOON)
    parcel = begin(first, NOON)
    status, following = settle(parcel, None, after(1), go_on=True)
    assert (status, ids(following)) == ("sent", {rows[OF_A_CHANNEL].id})
    assert claim(after(1)) == [], "the share is in use still"
    status, last = settle(following, None, after(2))
    assert (status, last) == ("sent", None)
    assert of(claim(after(2))) == {flooded.id: 1}


def test_does_not_go_on_after_a_failure(team, shop):
    due(channel(team), shop, OF_A_CHANNEL + 1)
    parcel = begin(claim(NOON)[0], NOON)
    assert settle(parcel, BROKEN, NOON, go_on=True) == ("pending", None)


# --- rate --------------------------------------------------------------------------------------------------------


def test_holds_a_channel_to_its_rate_and_lets_it_save_up_a_little(team, shop):
    due(channel(team, rate_per_minute=12), shop, 9)  # one in 5 s, two at once after a pause
    assert len(claim(NOON)) == 2
    assert claim(after(4)) == []
    assert len(claim(after(5))) == 1
    assert len(claim(after(5))) == 0
    for lease in list(Delivery.objects.filter(status="sending").values_list("lease", flat=True)):
        settle(begin(lease, after(6)), None, after(6), go_on=True)
    assert Delivery.objects.filter(status="sent").count() == 3
    assert len(claim(after(600))) == 2, "a night of silence is no burst"


def test_counts_what_is_begun_without_a_claim_against_the_rate(team, shop):
    due(channel(team, rate_per_minute=12), shop, 3)
    first, second = claim(NOON)
    assert settle(begin(first, NOON), None, NOON, go_on=True)[1] is None
    assert settle(begin(second, NOON), None, after(5), go_on=True)[1] is not None


# --- groups ------------------------------------------------------------------------------------------------------


def test_tells_people_once_of_what_happened_together_and_machines_of_each(team, shop):
    people_s, machine_s = for_people(team, host="people"), channel(team, "machine")
    outbox_now = [opened(shop, f"Shop {n}") for n in range(300)]
    for message in outbox_now:
        outbox.enqueue_to(message, {people_s.id, machine_s.id}, NOON)
    assert of(claim(NOON)) == {machine_s.id: OF_A_CHANNEL}, "people are told a moment later"
    [lease] = claim(after(3))
    parcel = begin(lease, after(3))
    assert len(parcel.pieces) == 300
    assert "300" in envelope(parcel).subject
    assert envelope(parcel).incident_id is None

    assert settle(parcel, None, after(4)) == ("sent", None)
    sent = Delivery.objects.filter(channel=people_s)
    assert set(sent.values_list("status", "attempts", "sent_at")) == {("sent", 1, after(4))}
    assert sent.values("key").distinct().count() == 300


def test_takes_in_what_came_a_moment_later_but_nothing_of_another_kind(team, shop):
    chat = for_people(team)
    [first] = due(chat, shop, 1)
    second = opened(shop, "Second")
    [later] = outbox.enqueue_to(second, {chat.id}, after(2.9))
    [other] = outbox.enqueue_to(
        Message(kind="degraded", team_id=team.id, at=NOON, monitor_name="Slow"), {chat.id}, NOON
    )
    [lease] = claim(after(3))
    assert ids(begin(lease, after(3))) in ({first.id, later.id}, {other.id})
    assert claim(after(3)) == [], "people read one thing after the other"


def test_says_a_single_thing_in_its_own_words(team, shop):
    chat = for_people(team)
    [delivery] = due(chat, shop, 1)
    parcel = begin(claim(after(3))[0], after(3))
    assert envelope(parcel).subject == delivery.message.subject
    assert envelope(parcel).incident_id == delivery.incident_id


def test_gathers_longer_when_it_has_just_spoken(team, shop):
    chat = for_people(team, last_success_at=after(-5))
    due(chat, shop, 1)
    assert claim(after(14)) == []
    assert len(claim(after(15))) == 1


def test_settles_each_of_a_group_by_its_own_tries(team, shop):
    chat = for_people(team)
    old, new = due(chat, shop, 2)
    tries = len(delivering.RETRY_SECONDS)
    Delivery.objects.filter(pk=old.pk).update(attempts=tries)
    settle(begin(claim(after(3))[0], after(3)), BROKEN, after(3))
    assert [Delivery.objects.get(pk=d.pk).status for d in (old, new)] == ["dead", "pending"]


def test_tests_at_once_and_alone(team, shop):
    chat = for_people(team)
    due(chat, shop, 2, now=after(-60))
    test = services.test(chat, NOON)
    Delivery.objects.filter(pk=test.pk).update(next_attempt_at=after(-100))
    assert ids(begin(claim(NOON)[0], NOON)) == {test.id}


# --- order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind_of_channel", [channel, for_people])
def test_tells_of_the_end_after_the_beginning_even_if_that_has_to_be_tried_again(team, shop, kind_of_channel):
    place = kind_of_channel(team)
    message = opened(shop)
    outbox.enqueue_to(message, {place.id}, NOON)
    settle(begin(claim(after(3))[0], after(3)), BROKEN, after(3))
    outbox.enqueue_to(resolved(message), {place.id}, after(4))
    assert claim(after(7.0)) == [], "the opening is to be tried again at 8"
    [lease] = claim(after(10))
    parcel = begin(lease, after(10))
    assert envelope(parcel).kind == "opened"
    assert claim(after(10)) == []
    settle(parcel, None, after(11))
    assert begin(claim(after(30))[0], after(30)).pieces[0].kind == "resolved"


def test_does_not_wait_for_an_opening_that_is_dead(team, shop):
    place = channel(team)
    message = opened(shop)
    outbox.enqueue_to(message, {place.id}, NOON)
    settle(begin(claim(NOON)[0], NOON), DeliveryFailed("no", permanent=True), NOON)
    outbox.enqueue_to(resolved(message), {place.id}, NOON)
    assert len(claim(NOON)) == 1


# --- attempts ----------------------------------------------------------------------------------------------------


def test_keeps_every_try_with_how_long_it_took_and_what_came_back(team, shop):
    [delivery] = due(channel(team), shop, 1)
    settle(begin(claim(NOON)[0], NOON), BROKEN, after(0.25))
    settle(begin(claim(after(60))[0], after(60)), None, after(60.5))
    assert list(delivery.tries.values_list("started_at", "took_ms", "outcome", "detail")) == [
        (NOON, 250, "failed", "It answered 500."),
        (after(60), 500, "sent", ""),
    ]


def test_shows_a_try_that_its_process_did_not_survive(team, shop):
    due(channel(team), shop, 1)
    begin(claim(NOON)[0], NOON)
    assert DeliveryAttempt.objects.get().outcome == "under_way"
    claim(after(delivering.SEND_SECONDS + 1))
    assert DeliveryAttempt.objects.get().outcome == "cut_short"


# --- health ------------------------------------------------------------------------------------------------------


def fail(count, now=NOON, failure=BROKEN):
    for _ in range(count):
        Delivery.objects.filter(status="pending").update(next_attempt_at=now)
        settle(begin(claim(now)[0], now), failure, now)


def test_counts_a_streak_and_forgets_it_with_a_success(team, shop):
    place = channel(team)
    due(place, shop, 1)
    fail(2)
    place.refresh_from_db()
    assert (place.failures, place.failing_since, place.last_success_at) == (2, NOON, None)
    settle(begin(claim(after(600))[0], after(600)), None, after(600))
    place.refresh_from_db()
    assert (place.failures, place.failing_since, place.last_success_at) == (0, None, after(600))


def test_tells_at_once_what_waited_for_a_place_that_answers_again(team, shop):
    place = channel(team)
    [waiting] = due(place, shop, 1)
    fail(1)
    Delivery.objects.filter(pk=waiting.pk).update(attempts=9, next_attempt_at=after(40_000))
    due(place, shop, 1)
    settle(begin(claim(NOON)[0], NOON), None, after(60))
    waiting.refresh_from_db()
    assert waiting.next_attempt_at == after(60)


def test_leaves_a_place_alone_that_asks_for_time(team, shop):
    place = channel(team)
    for delivery in due(place, shop, 3):
        Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=NOON + timedelta(seconds=delivery.id))
    now = NOON + timedelta(seconds=Delivery.objects.earliest("id").id)
    settle(begin(claim(now)[0], now), DeliveryFailed("slow down", retry_after=600), now)
    assert claim(now + timedelta(seconds=599)) == []
    assert len(claim(now + timedelta(seconds=700))) == 3


def told_owners():
    return list(
        Delivery.objects.filter(kind="channel_failing").values_list(
            "channel__name", "status", "message__severity"
        )
    )


def test_tells_by_another_channel_once_that_one_keeps_failing(team, shop):
    place = channel(team)
    Channel.objects.exclude(pk=place.pk).delete()
    other = channel(team, "other")
    Channel.objects.filter(pk=other.pk).update(name="Other")
    due(place, shop, 1)
    fail(FAILING_AFTER - 1)
    assert told_owners() == []
    fail(1)
    assert told_owners() == [("Other", "pending", "warning")]
    text = MessageRecord.objects.get(kind="channel_failing").text
    assert "It answered 500." in text
    Delivery.objects.filter(kind="channel_failing").update(status="muted")
    fail(2)
    assert len(told_owners()) == 1


def test_tells_at_once_of_a_channel_whose_place_is_gone(team, shop):
    place, _other = channel(team), channel(team, "other")
    due(place, shop, 1)
    fail(1, failure=DeliveryFailed("It answered 410.", gone=True))
    assert len(told_owners()) == 1
    place.refresh_from_db()
    assert (place.enabled, place.disabled_reason) == (False, "It answered 410.")


def test_mails_the_owners_when_no_other_channel_is_well(team, shop, settings):
    settings.EMAIL_CONFIGURED = True
    people.alice(), people.ada()
    place = channel(team)
    channel(team, "ill", failures=1)
    due(place, shop, 1)
    fail(FAILING_AFTER)
    last_resort = Channel.objects.get(for_owners=True)
    assert last_resort.config == {"to": [people.alice().email]}
    assert [name for name, _, _ in told_owners()] == [last_resort.name]
    assert outbox.owners_channel(team.id, NOON) == last_resort


def test_says_so_in_the_log_when_there_is_nobody_left_to_tell(team, shop, settings, caplog):
    settings.EMAIL_CONFIGURED = False
    due(channel(team), shop, 1)
    fail(FAILING_AFTER)
    assert told_owners() == []
    assert "channel_failing_and_no_other" in caplog.text


# --- back again --------------------------------------------------------------------------------------------------


def test_tells_a_channel_that_is_enabled_again_of_what_is_open_and_of_what_ended(team, shop):
    place = subscribed(channel(team))
    told, missed, over = (opened(shop, name) for name in ("Told", "Missed", "Over"))
    outbox.enqueue([told], NOON)
    settle(begin(claim(NOON)[0], NOON), None, NOON)

    Channel.objects.filter(pk=place.pk).update(enabled=False)
    outbox.enqueue([resolved(told), missed, over], after(10))
    for message in (told, over):
        Incident.objects.filter(pk=message.incident_id).update(status="resolved", resolved_at=after(20))
    outbox.enqueue([resolved(over)], after(20))
    assert claim(after(999)) == []

    Channel.objects.filter(pk=place.pk).update(enabled=True)
    place.refresh_from_db()
    assert outbox.catch_up(place, after(1000)) == 2
    waiting = Delivery.objects.filter(status="pending").values_list(
        "kind", "message__payload__data__monitor__name"
    )
    assert sorted(waiting) == [("opened", "Missed"), ("resolved", "Told")]
    assert outbox.catch_up(place, after(1000)) == 0


def test_tells_a_channel_that_comes_new_to_an_open_incident(team, shop):
    outbox.enqueue([opened(shop)], NOON)
    late, elsewhere = subscribed(channel(team)), subscribed(channel(people.globex()))
    assert (outbox.catch_up(late, after(60)), outbox.catch_up(elsewhere, after(60))) == (1, 0)
    [delivery] = Delivery.objects.all()
    assert (delivery.channel, delivery.kind, delivery.next_attempt_at) == (late, "opened", after(60))


@pytest.mark.django_db(transaction=True)
def test_lets_a_channel_go_while_one_of_its_deliveries_is_begun(team, shop):
    place = channel(team)
    due(place, shop, 1)
    [lease] = claim(NOON)
    with transaction.atomic():
        assert begin(lease, NOON)  # its attempt is written, and nobody else sees it yet
        deleting = threading.Thread(target=in_another_connection, args=(services.delete_channel, place))
        deleting.start()
        deadline = time.monotonic() + 20
        while not waits_for_a_lock():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    deleting.join(20)
    assert not deleting.is_alive()
    assert not Channel.objects.exists()
    assert not DeliveryAttempt.objects.exists()


def in_another_connection(function, *arguments):
    function(*arguments)
    connection.close()


def waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()
