"""Opsgenie: alerts by their alias, judged as its documentation says."""

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.opsgenie import Opsgenie
from tests.support import target
from tests.support.sending import LINKS, became, complaint, envelope
from tests.support.target import reply

KEY = "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
CONFIG = {"api_key": KEY, "region": "us"}
PROCESSING = b'{"result": "Request will be processed", "took": 0.1, "requestId": "43a29c5c"}'
INVALID = b'{"message": "Key format is not valid!", "took": 0.001, "requestId": "1c2ed4cd"}'

JUDGEMENTS = [
    # answer                                        what became of it
    (reply(202, PROCESSING),                        "sent"),
    (reply(200),                                    "sent"),
    (reply(400, INVALID),                           "permanent"),
    (reply(401),                                    "permanent"),
    (reply(402),                                    "permanent"),
    (reply(403),                                    "permanent"),
    (reply(404),                                    "permanent"),
    (reply(422),                                    "permanent"),
    (reply(410),                                    "gone"),
    (reply(429),                                    "retry"),
    (reply(429, headers=[("Retry-After", "30")]),   "throttled(30)"),
    (reply(500),                                    "retry"),
    (reply(503),                                    "retry"),
    (target.hang_up,                                "retry"),
]  # fmt: skip


@pytest.fixture
def opsgenie(hook) -> Opsgenie:
    hook.otherwise = reply(202, PROCESSING)
    return Opsgenie(hook.url("").rstrip("/"))


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, opsgenie, answer, meaning):
    hook.script(answer)
    word, said = became(opsgenie, CONFIG)
    assert word == meaning
    assert KEY not in said
    assert len(hook.received) == 1


def test_creates_an_alert_with_the_incident_as_its_alias(hook, opsgenie):
    assert became(opsgenie, CONFIG) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["authorization"]) == ("/v2/alerts", f"GenieKey {KEY}")
    assert got.json == {
        "message": "DOWN: Shop (status) ☠",
        "alias": "healthmon-incident-7",
        "description": 'Shop is down since 12:00.\nIt answered 500 & said "no".',
        "priority": "P1",
        "source": "healthmon",
        "details": {"kind": "opened"} | LINKS,
    }


@pytest.mark.parametrize(("kind", "verb"), [("acknowledged", "acknowledge"), ("resolved", "close")])
def test_acknowledges_and_closes_the_same_alert(hook, opsgenie, kind, verb):
    became(opsgenie, CONFIG, kind=kind, text="Shop: it answers again.")
    [got] = hook.received
    assert got.path == f"/v2/alerts/healthmon-incident-7/{verb}?identifierType=alias"
    assert got.headers["authorization"] == f"GenieKey {KEY}"
    assert got.json == {"source": "healthmon", "note": "Shop: it answers again."}


@pytest.mark.parametrize(("severity", "priority"), [("critical", "P1"), ("warning", "P3"), ("info", "P5")])
def test_turns_the_severity_into_a_priority(hook, opsgenie, severity, priority):
    became(opsgenie, CONFIG, severity=severity)
    assert hook.received[0].json["priority"] == priority


def test_cuts_what_is_too_long(hook, opsgenie):
    became(opsgenie, CONFIG, subject="s" * 500, text="t" * 20_000)
    became(opsgenie, CONFIG, kind="resolved", text="t" * 30_000)
    created, closed = (got.json for got in hook.received)
    assert (len(created["message"]), len(created["description"]), len(closed["note"])) == (
        130,
        15_000,
        25_000,
    )


@pytest.mark.parametrize(("region", "host"), [("us", "api.opsgenie.com"), ("eu", "api.eu.opsgenie.com")])
def test_talks_to_the_accounts_region(region, host):
    opsgenie, config = TRANSPORTS["opsgenie"], CONFIG | {"region": region}
    assert opsgenie.destination(config) == f"{host}:443"
    assert opsgenie.post(envelope(), config).url == f"https://{host}/v2/alerts"


COMPLAINTS = [
    # given                                    what is wrong
    ({"api_key": KEY},                         set()),
    ({"api_key": KEY, "region": "eu"},         set()),
    ({},                                       {"api_key"}),
    ({"api_key": "short"},                     {"api_key"}),
    ({"api_key": KEY + "\r\nX-Evil: 1"},       {"api_key"}),
    ({"api_key": {}},                          {"api_key"}),
    ({"api_key": KEY, "region": "usa"},        {"region"}),
    ({"api_key": KEY, "alias": "x"},           {"alias"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(TRANSPORTS["opsgenie"], given)
    assert set(found) == wrong
    assert KEY not in str(found)


def test_is_told_by_itself_and_held_back():
    assert TRANSPORTS["opsgenie"].for_machines
    assert TRANSPORTS["opsgenie"].rate_per_minute == 60
    assert TRANSPORTS["opsgenie"].secret_fields == {"api_key"}
