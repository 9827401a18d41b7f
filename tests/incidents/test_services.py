"""What happens to incidents: a change opens or resolves one, once, together with what is told of it."""

import threading
from dataclasses import replace

import pytest
from django.db import IntegrityError, connection, transaction

from incidents import services
from incidents.changes import StatusChange
from incidents.models import Incident, IncidentEvent
from monitors import services as monitors
from monitors.models import Monitor
from notifications.models import Delivery, MessageRecord
from tests.support.people import acme, bob
from tests.support.watching import NOON, after, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db


def change(monitor: Monitor, to: str, at=NOON, **fields) -> StatusChange:
    facts = (
        {"reason": "status", "detail": "It answered 500.", "evidence": {"why": "so"}} if to == "down" else {}
    )
    return StatusChange(
        team_id=monitor.team_id, monitor_id=monitor.id, monitor_name=monitor.name, monitor_url=monitor.url,
        runbook_url=monitor.runbook_url, tags=tuple(monitor.tags), after=to, at=at,
        **({"before": "up"} | facts | fields),
    )  # fmt: skip


def told() -> list[str]:
    return list(Delivery.objects.order_by("id").values_list("message__kind", flat=True))


@pytest.fixture
def shop() -> Monitor:
    return monitor(acme())


@pytest.fixture
def hook():
    return subscribed(webhook(acme()), scope="all")


def test_opens_with_all_there_is_to_know(shop, hook):
    services.apply([change(shop, "down")], after(1))
    incident = Incident.objects.get()
    assert (incident.status, incident.reason, incident.detail) == ("open", "status", "It answered 500.")
    assert (incident.opened_at, incident.evidence) == (NOON, {"why": "so"})
    assert (incident.team, incident.monitor, incident.monitor_name, incident.monitor_url) == (
        acme(), shop, shop.name, shop.url,
    )  # fmt: skip
    assert list(incident.events.values_list("kind", "at", "text")) == [("opened", NOON, "It answered 500.")]
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.channel, delivery.next_attempt_at) == ("pending", hook, after(1))
    assert delivery.message.payload["data"]["incident"]["id"] == incident.id


@pytest.mark.parametrize("after_status", ["up", "degraded", "new", "paused", "deleted"])
def test_resolves_when_it_is_not_down_any_more(shop, hook, after_status):
    services.apply([change(shop, "down")], NOON)
    services.apply([change(shop, after_status, after(90), by_user_id=bob().id)], after(91))
    incident = Incident.objects.get()
    resolution = after_status if after_status in ("paused", "deleted") else "recovered"
    assert (incident.status, incident.resolved_at, incident.resolution) == ("resolved", after(90), resolution)
    assert [(event.kind, event.by) for event in incident.events.all()] == [
        ("opened", None),
        ("resolved", bob()),
    ]
    assert told() == ["opened", "resolved"]


SEVERITIES = [
    # of the monitor, of its opening and its end, of being slow, of being slow no more
    ("critical", "critical", "warning", "info"),
    ("warning", "warning", "warning", "info"),
    ("info", "info", "info", "info"),
]


@pytest.mark.parametrize(("severity", "of_down", "of_slow", "of_quick"), SEVERITIES)
def test_messages_are_as_bad_as_what_happened(hook, severity, of_down, of_slow, of_quick):
    subscribed(hook, scope="all", kinds=["degraded", "recovered"])
    shop = monitor(acme(), severity=severity)
    facts = {"severity": severity}
    services.apply([change(shop, "degraded", after(1), **facts)], after(1))
    services.apply([change(shop, "up", after(2), before="degraded", **facts)], after(2))
    services.apply([change(shop, "down", after(3), **facts)], after(3))
    Monitor.objects.update(severity="info")
    assert Incident.objects.get().severity == severity
    services.acknowledge(Incident.objects.get(), bob(), after(4))
    services.apply([change(shop, "up", after(5), severity="info")], after(5))
    assert list(MessageRecord.objects.order_by("id").values_list("kind", "severity")) == [
        ("degraded", of_slow), ("recovered", of_quick), ("opened", of_down), ("acknowledged", of_down),
        ("resolved", of_down),
    ]  # fmt: skip


def test_slow_is_told_to_who_asked_for_it_and_opens_nothing(shop, hook):
    slow = subscribed(webhook(acme()), scope="all", kinds=["degraded", "recovered"])
    facts = {"reason": "slow", "detail": "It took 900 ms."}
    services.apply([change(shop, "degraded", after(1), before="new", **facts)], after(1))
    services.apply([change(shop, "up", after(2), before="degraded")], after(2))
    assert not Incident.objects.exists()
    assert list(Delivery.objects.order_by("id").values_list("kind", "channel", "incident")) == [
        ("degraded", slow.id, None),
        ("recovered", slow.id, None),
    ]
    record = MessageRecord.objects.earliest("id")
    assert "It took 900 ms." in record.text
    assert record.payload["data"]["monitor"]["id"] == shop.id
    assert record.payload["data"]["incident"] is None


@pytest.mark.parametrize(
    ("before", "to", "told_of"),
    [
        ("new", "up", None),
        ("new", "degraded", "degraded"),
        ("up", "degraded", "degraded"),
        ("degraded", "up", "recovered"),
        ("degraded", "paused", None),
        ("degraded", "deleted", None),
        ("degraded", "new", None),
        ("down", "degraded", None),
        ("down", "up", None),
        ("paused", "new", None),
    ],
)
def test_tells_of_slow_and_of_quick_again_alone(shop, hook, before, to, told_of):
    subscribed(hook, scope="all", kinds=["degraded", "recovered"])
    services.apply([change(shop, to, before=before)], NOON)
    assert told() == ([told_of] if told_of else [])


def test_opening_twice_gives_one(shop, hook):
    services.apply([change(shop, "down")], NOON)
    services.apply([change(shop, "down", after(30))], after(30))
    services.apply([change(shop, "down", after(60)), change(shop, "down", after(61))], after(61))
    assert (Incident.objects.count(), IncidentEvent.objects.count(), told()) == (1, 1, ["opened"])


def test_opening_twice_in_one_breath_gives_one(shop, hook):
    services.apply([change(shop, "down"), change(shop, "down")], NOON)
    assert (Incident.objects.count(), IncidentEvent.objects.count(), told()) == (1, 1, ["opened"])


def test_closing_without_an_incident_does_nothing(shop, hook):
    services.apply([change(shop, "up"), change(shop, "up")], NOON)
    assert not Incident.objects.exists()
    assert not MessageRecord.objects.exists()
    services.apply([change(shop, "down")], NOON)
    for n in (1, 2):
        services.apply([change(shop, "up", after(n))], after(n))
    assert told() == ["opened", "resolved"]
    assert Incident.objects.get().resolved_at == after(1)


def test_a_new_outage_is_a_new_incident(shop):
    for n, status in enumerate(["down", "up", "down", "up", "down"]):
        services.apply([change(shop, status, after(n))], after(n))
    assert [i.status for i in Incident.objects.order_by("id")] == ["resolved", "resolved", "open"]


def test_a_clock_that_runs_back_does_not_end_an_incident_before_it_began(shop):
    services.apply([change(shop, "down", after(60))], after(60))
    services.apply([change(shop, "up", NOON)], after(61))
    assert Incident.objects.get().resolved_at == after(60)


def test_takes_what_no_database_keeps(shop):
    evidence = {"body": "a\0b", "headers": {"x": "\\u0000"}}
    services.apply([change(shop, "down", evidence=evidence)], NOON)
    assert Incident.objects.get().evidence == {"body": "a\ufffdb", "headers": {"x": "\\ufffd"}}


@pytest.mark.parametrize("size", [1, 40])
def test_the_number_of_statements_does_not_grow_with_the_changes(hook, size, django_assert_num_queries):
    who, shops = bob().id, [monitor(acme()) for _ in range(size)]
    with django_assert_num_queries(8):
        services.apply([change(shop, "down") for shop in shops], NOON)
    assert len(told()) == size
    with django_assert_num_queries(10):
        services.apply([change(shop, "up", after(1), by_user_id=who) for shop in shops], after(1))
    assert len(told()) == 2 * size


def test_the_database_holds_one_open_incident_per_monitor(shop):
    services.apply([change(shop, "down")], NOON)
    fields = {"team": acme(), "monitor": shop, "monitor_name": "x", "monitor_url": "x", "reason": "dns"}
    with pytest.raises(IntegrityError, match="incident_one_open"), transaction.atomic():
        Incident.objects.create(opened_at=NOON, **fields)
    for n in range(2):
        Incident.objects.create(opened_at=NOON, resolved_at=after(n), status="resolved", **fields)
    with pytest.raises(IntegrityError, match="incident_forward"), transaction.atomic():
        Incident.objects.create(opened_at=NOON, resolved_at=after(-1), status="resolved", **fields)
    with pytest.raises(IntegrityError, match="incident_resolved_has_a_time"), transaction.atomic():
        Incident.objects.filter(resolved_at=None).update(status="resolved")


def test_a_rollback_takes_all_of_it_along(shop, hook):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        services.apply([change(shop, "down")], NOON)
        assert told() == ["opened"]
        raise ZeroDivisionError
    for model in (Incident, IncidentEvent, MessageRecord, Delivery):
        assert not model.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("status", ["down", "up"])
def test_of_two_transactions_at_once_one_has_something_to_tell(shop, hook, status):
    """Both have begun before either ends; the second waits for the first and then finds nothing left to do."""
    before = ["opened"] if status == "up" else []
    if before:
        services.apply([change(shop, "down")], NOON)
    begun = threading.Barrier(2, timeout=30)

    def apply() -> None:
        try:
            with transaction.atomic():
                Incident.objects.count()
                begun.wait()
                services.apply([change(shop, status, after(1))], after(1))
        finally:
            connection.close()

    threads = [threading.Thread(target=apply) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert told() == [*before, "opened" if status == "down" else "resolved"]
    assert Incident.objects.count() == 1


# --- people's deeds -------------------------------------------------------------------------------------------


@pytest.fixture
def incident(shop) -> Incident:
    services.apply([change(shop, "down")], NOON)
    return Incident.objects.get()


def test_acknowledging_is_told_once(incident, hook):
    for n in (1, 2):
        services.acknowledge(incident, bob(), after(n))
    incident.refresh_from_db()
    assert (incident.status, incident.acknowledged_at, incident.acknowledged_by) == (
        "acknowledged",
        after(1),
        bob(),
    )
    assert told() == ["acknowledged"]
    services.apply([change(incident.monitor, "down", after(3))], after(3))
    assert Incident.objects.count() == 1, "acknowledged is still open"
    services.apply([change(incident.monitor, "up", after(4))], after(4))
    assert told() == ["acknowledged", "resolved"]


def test_resolving_by_hand_is_the_end_of_it(incident, hook):
    services.resolve(incident, bob(), after(1))
    incident.refresh_from_db()
    assert (incident.status, incident.resolution, incident.resolved_at) == ("resolved", "by_person", after(1))
    for deed in (services.resolve, services.acknowledge):
        with pytest.raises(services.IncidentClosed):
            deed(incident, bob(), after(2))
    services.apply([change(incident.monitor, "up", after(3))], after(3))
    assert told() == ["resolved"]
    services.comment(incident, bob(), "It was the disk.", after(4))
    assert [event.kind for event in incident.events.all()] == ["opened", "resolved", "commented"]


def test_deeds_of_people_who_left_stay(incident):
    services.acknowledge(incident, bob(), after(1))
    bob().delete()
    incident.refresh_from_db()
    assert (incident.status, incident.acknowledged_by) == ("acknowledged", None)
    assert incident.events.count() == 2


@pytest.mark.parametrize("deed", [monitors.pause, monitors.delete])
def test_pausing_and_deleting_tell_whoever_was_told(shop, incident, deed):
    """… also through a subscription that goes with the monitor."""
    services.resolve(incident, bob(), after(1))
    subscribed(webhook(acme()), scope="monitor", monitor=shop)
    services.apply([change(shop, "down", after(2))], after(2))
    deed([shop], bob(), after(3))
    assert told() == ["opened", "resolved"]
    last = Delivery.objects.latest("id").message
    assert "bob@example.com" in last.text
    assert last.payload["data"]["incident"]["status"] == "resolved"


def test_a_channel_that_was_told_of_the_opening_hears_of_the_end(shop, incident):
    services.resolve(incident, bob(), after(1))
    channel = subscribed(webhook(acme()), scope="tag", tag="prod")
    tagged = replace(change(shop, "down", after(2)), tags=("prod",))
    services.apply([tagged], after(2))
    services.apply([change(shop, "up", after(3))], after(3))  # no tag any more
    assert [delivery.channel for delivery in Delivery.objects.all()] == [channel] * 2
