"""PagerDuty: events as its API reads them, judged as its documentation says."""

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.pagerduty import PagerDuty
from tests.support import target
from tests.support.sending import LINKS, MONITOR, became, complaint, envelope
from tests.support.target import reply

KEY = "R0123456789abcdefghijklmnopqrstu"
CONFIG = {"routing_key": KEY, "region": "us"}
INVALID = b'{"status": "invalid event", "message": "Event object is invalid", "errors": ["..."]}'

JUDGEMENTS = [
    # answer                                            what became of it
    (reply(202, b'{"status": "success"}'),              "sent"),
    (reply(200),                                        "sent"),
    (reply(400, INVALID),                               "permanent"),
    (reply(403),                                        "permanent"),
    (reply(404),                                        "permanent"),
    (reply(413),                                        "permanent"),
    (reply(429),                                        "retry"),
    (reply(429, headers=[("Retry-After", "60")]),       "throttled(60)"),
    (reply(500),                                        "retry"),
    (reply(502),                                        "retry"),
    (reply(503, headers=[("Retry-After", "5")]),        "throttled(5)"),
    (reply(410),                                        "gone"),
    (target.redirect("/elsewhere"),                     "retry"),
    (target.hang_up,                                    "retry"),
]  # fmt: skip


@pytest.fixture
def pagerduty(hook) -> PagerDuty:
    hook.otherwise = reply(202)
    return PagerDuty(hook.url("").rstrip("/"))


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, pagerduty, answer, meaning):
    hook.script(answer)
    word, said = became(pagerduty, CONFIG)
    assert word == meaning
    assert KEY not in said
    assert len(hook.received) == 1


def test_opens_an_alert_with_all_that_is_known(hook, pagerduty):
    assert became(pagerduty, CONFIG) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == ("/v2/enqueue", "application/json")
    assert got.json == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "healthmon-incident-7",
        "payload": {
            "summary": "DOWN: Shop (status) ☠",
            "source": "shop.example.com",
            "severity": "critical",
            "timestamp": "2026-11-23T11:59:58Z",
            "class": "opened",
            "custom_details": {"incident": {"id": 7}, "monitor": MONITOR, "message": "Café is down ☠"},
        },
        "links": [{"href": href, "text": text} for text, href in LINKS.items()],
        "client": "healthmon",
    }


@pytest.mark.parametrize(("kind", "action"), [("acknowledged", "acknowledge"), ("resolved", "resolve")])
def test_acknowledges_and_resolves_the_same_alert(hook, pagerduty, kind, action):
    became(pagerduty, CONFIG, kind=kind)
    assert hook.received[0].json == {
        "routing_key": KEY,
        "event_action": action,
        "dedup_key": "healthmon-incident-7",
    }


SEVERITIES = [("critical", "critical"), ("warning", "warning"), ("info", "info"), ("new", "critical")]


@pytest.mark.parametrize(("severity", "sent"), SEVERITIES)
def test_hands_the_severity_on(hook, pagerduty, severity, sent):
    became(pagerduty, CONFIG, severity=severity)
    assert hook.received[0].json["payload"]["severity"] == sent


def test_triggers_a_test_as_an_alert_of_its_own(hook, pagerduty):
    became(
        pagerduty, CONFIG, kind="test", incident_id=None, payload={"type": "test", "data": {"monitor": None}}
    )
    sent = hook.received[0].json
    assert (sent["event_action"], sent["dedup_key"]) == ("trigger", "healthmon-msg_0123456789abcdef")
    assert sent["payload"]["source"] == "healthmon"


def test_sends_the_same_bytes_on_every_attempt(hook, pagerduty):
    hook.script(reply(500), reply(202))
    assert [became(pagerduty, CONFIG)[0] for _ in range(2)] == ["retry", "sent"]
    assert hook.received[0].body == hook.received[1].body


def test_cuts_the_summary(hook, pagerduty):
    became(pagerduty, CONFIG, subject="x" * 2000)
    assert len(hook.received[0].json["payload"]["summary"]) == 1024


@pytest.mark.parametrize(
    ("region", "host"), [("us", "events.pagerduty.com"), ("eu", "events.eu.pagerduty.com")]
)
def test_talks_to_the_accounts_region(region, host):
    pagerduty, config = TRANSPORTS["pagerduty"], CONFIG | {"region": region}
    assert pagerduty.destination(config) == f"{host}:443"
    assert pagerduty.post(envelope(), config).url == f"https://{host}/v2/enqueue"


COMPLAINTS = [
    # given                                       what is wrong
    ({"routing_key": KEY},                        set()),
    ({"routing_key": KEY, "region": "eu"},        set()),
    ({},                                          {"routing_key"}),
    ({"routing_key": None},                       {"routing_key"}),
    ({"routing_key": KEY[1:]},                    {"routing_key"}),
    ({"routing_key": KEY + "\n"},                 {"routing_key"}),
    ({"routing_key": 5},                          {"routing_key"}),
    ({"routing_key": [KEY]},                      {"routing_key"}),
    ({"routing_key": KEY, "region": "moon"},      {"region"}),
    ({"routing_key": KEY, "region": ["us"]},      {"region"}),
    ({"routing_key": KEY, "url": "https://a.b"},  {"url"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(TRANSPORTS["pagerduty"], given)
    assert set(found) == wrong
    assert KEY[1:] not in str(found)


def test_is_told_by_itself_and_held_back():
    assert TRANSPORTS["pagerduty"].for_machines
    assert TRANSPORTS["pagerduty"].rate_per_minute == 120
    assert TRANSPORTS["pagerduty"].secret_fields == {"routing_key"}
    assert TRANSPORTS["pagerduty"].validate({"routing_key": KEY}) == CONFIG
