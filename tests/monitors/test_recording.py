"""Recording: what comes back is written down once, and decided upon in the same transaction."""

from datetime import timedelta

import pytest

from accounts.models import Team
from incidents.models import Incident
from monitors import recording
from monitors.models import Region, RegionState, Result, StatusPeriod
from notifications.models import Delivery
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Shop", slug="shop")


def record(*outcomes, now=None):
    latest = max(o.scheduled_at for o in outcomes)
    return recording.record(outcomes, now or NOON.fromtimestamp(latest + 2, NOON.tzinfo))


def test_a_first_success_makes_a_new_monitor_up(team):
    shop = monitor(team)
    assert record(outcome(shop)) == 1
    shop.refresh_from_db()
    assert shop.status == "up"
    assert [p.status for p in StatusPeriod.objects.filter(monitor=shop).order_by("started_at", "id")] == [
        "new",
        "up",
    ]
    state = RegionState.objects.get(monitor=shop)
    assert (state.status, state.successes, state.recheck_at) == ("up", 1, None)


def test_an_outage_opens_one_incident_with_its_evidence_and_a_delivery_per_channel(team):
    shop = monitor(team)
    subscribed(webhook(team), scope="all")
    record(outcome(shop))
    record(outcome(shop, "status", at=after(30), status_code=500, detail="It answered 500."))
    assert not Incident.objects.exists(), "one failure is a suspicion"
    state = RegionState.objects.get(monitor=shop)
    assert state.recheck_at == after(36), "… to be looked into in five seconds"
    record(outcome(shop, "status", at=after(36), status_code=500, detail="It answered 500.", urgent=True,
                   evidence={"status_code": 500, "body": "oops"}))  # fmt: skip

    incident = Incident.objects.get()
    assert (incident.status, incident.reason, incident.detail) == ("open", "status", "It answered 500.")
    assert incident.evidence["policy"]["failures_to_open"] == 2
    assert [result["reason"] for result in incident.evidence["results"]] == ["status", "status", "ok"]
    assert incident.evidence["response"] == {"status_code": 500, "body": "oops"}
    assert incident.evidence["regions"][0]["failures"] == 2
    delivery = Delivery.objects.get()
    assert (delivery.message.kind, delivery.status) == ("opened", "pending")

    record(outcome(shop, at=after(60)))
    incident.refresh_from_db()
    assert (incident.status, incident.resolution) == ("resolved", "recovered")
    assert sorted(Delivery.objects.values_list("message__kind", flat=True)) == ["opened", "resolved"]


def test_a_replayed_message_changes_nothing(team):
    shop = monitor(team)
    batch = [outcome(shop, "timeout", at=after(30 * n)) for n in range(3)]
    assert record(*batch) == 3
    before = RegionState.objects.values().get(monitor=shop)
    assert record(*batch) == 0
    assert RegionState.objects.values().get(monitor=shop) == before
    assert Incident.objects.count() == 1
    assert Result.objects.filter(monitor=shop).count() == 3


def test_what_is_new_is_written_though_some_of_its_batch_is_recorded_already(team):
    shop, site = monitor(team), monitor(team)
    known = outcome(shop)
    record(known)
    fresh = [
        outcome(site, status_code=204, total_ms=12.5, tls_ms=None, reused=True),
        outcome(shop, "timeout", at=after(30), detail='Tab\t, line\n, "quote", \\ and \0.'),
    ]
    assert record(known, *fresh) == 2
    late = Result.objects.get(monitor=shop, scheduled_at=after(30))
    assert (late.reason, late.detail) == (
        "timeout",
        'Tab\t, line\n, "quote", \\ and \N{REPLACEMENT CHARACTER}.',
    )
    seen = Result.objects.get(monitor=site)
    assert (seen.status_code, seen.total_ms, seen.tls_ms, seen.reused) == (204, 12.5, None, True)
    assert RegionState.objects.get(monitor=shop).failures == 1


@pytest.mark.parametrize("recorded_before", [False, True])
def test_every_word_and_number_is_kept_as_it_came(team, recorded_before):
    shop = monitor(team)
    if recorded_before:
        record(outcome(shop))
    strange = outcome(shop, "tls", at=after(30), total_ms=0.25, status_code=None, detail='a\tb\\N\n{"\0')
    record(outcome(shop), strange)
    kept = Result.objects.get(monitor=shop, scheduled_at=after(30))
    assert kept.started_at.timestamp() == strange.started_at
    assert (kept.total_ms, kept.status_code) == (0.25, None)
    assert kept.detail == 'a\tb\\N\n{"\N{REPLACEMENT CHARACTER}'


def test_a_late_result_is_kept_and_flips_nothing(team):
    shop = monitor(team, failures_to_open=1)
    record(outcome(shop, at=after(60)))
    record(outcome(shop, "timeout", at=after(30)))
    shop.refresh_from_db()
    assert shop.status == "up"
    assert not Incident.objects.exists()
    assert Result.objects.filter(monitor=shop).count() == 2


class TestQuiet:
    """What is up and stays up touches no state, and nothing is decided differently for that."""

    def test_results_that_all_is_well_pass_the_state_by(self, team):
        shop = monitor(team)
        record(outcome(shop))
        before = RegionState.objects.values().get(monitor=shop)
        record(outcome(shop, at=after(30)), outcome(shop, at=after(60)))
        assert RegionState.objects.values().get(monitor=shop) == before
        assert Result.objects.filter(monitor=shop).count() == 3

    def test_a_failure_older_than_such_a_result_is_late_all_the_same(self, team):
        shop = monitor(team, failures_to_open=1)
        record(outcome(shop))
        record(outcome(shop, at=after(60)))
        record(outcome(shop, "timeout", at=after(30)))
        shop.refresh_from_db()
        assert (shop.status, Incident.objects.count()) == ("up", 0)

    def test_one_that_another_worker_recorded_at_the_same_moment_ends_a_run_of_failures(self, team):
        shop = monitor(team, failures_to_open=2)
        record(outcome(shop))
        record(outcome(shop, "timeout", at=after(30)))
        # It read the state before that failure was committed, found it quiet, and passed it by.
        region = Region.objects.get()
        Result.objects.create(
            monitor=shop, region=region, scheduled_at=after(60), started_at=after(60), reason="ok", detail=""
        )
        record(outcome(shop, "timeout", at=after(90)))
        assert RegionState.objects.get(monitor=shop).failures == 1
        assert not Incident.objects.exists(), "two failures, and an answer between them"
        record(outcome(shop, "timeout", at=after(120)))
        assert Incident.objects.count() == 1

    @pytest.mark.parametrize("size", [1, 50])
    def test_a_healthy_batch_is_four_statements_and_a_transaction(
        self, team, size, django_assert_num_queries
    ):
        shops = [monitor(team) for _ in range(size)]
        record(*(outcome(shop) for shop in shops))
        with django_assert_num_queries(6):
            record(*(outcome(shop, at=after(30)) for shop in shops))


def test_a_paused_monitor_keeps_results_and_stays_paused(team):
    from monitors import services

    shop = monitor(team, failures_to_open=1)
    services.pause([shop], None, after(1))
    record(outcome(shop, "timeout", at=after(30)))
    shop.refresh_from_db()
    assert shop.status == "paused"
    assert not Incident.objects.exists()


def test_results_of_a_deleted_monitor_or_an_unknown_region_are_dropped(team):
    shop, gone = monitor(team), monitor(team)
    recorded = outcome(gone)
    gone.delete()
    assert record(recorded, outcome(shop, region="atlantis"), outcome(shop)) == 1


def test_a_slot_older_than_a_day_or_from_the_future_does_not_cost_the_batch(team):
    shop = monitor(team)
    strange = [outcome(shop, at=NOON - timedelta(days=400)), outcome(shop, at=NOON + timedelta(days=400))]
    assert recording.record([*strange, outcome(shop)], NOON) == 1


def test_two_of_three_regions_decide(team):
    for slug in ("eu", "us", "ap"):
        Region.objects.create(slug=slug, name=slug)
    shop = monitor(team, regions=["eu", "us", "ap"], failures_to_open=1)
    record(*(outcome(shop, region=slug) for slug in ("eu", "us", "ap")))
    record(outcome(shop, "timeout", at=after(30), region="eu"))
    shop.refresh_from_db()
    assert shop.status == "degraded"
    record(outcome(shop, "timeout", at=after(30), region="us"))
    shop.refresh_from_db()
    assert shop.status == "down"
    assert Incident.objects.get().evidence["regions"][2]["region"] == "us"


@pytest.mark.parametrize("size", [1, 50])
def test_the_number_of_statements_does_not_grow_with_the_batch(team, size, django_assert_num_queries):
    subscribed(webhook(team), scope="all")
    shops = [monitor(team, failures_to_open=1) for _ in range(size)]
    with django_assert_num_queries(23):
        record(*(outcome(shop, "timeout") for shop in shops))
