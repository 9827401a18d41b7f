"""Pushover: a form, judged as its documentation says."""

from urllib.parse import parse_qs

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.pushover import Pushover
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

TOKEN, USER = "azGDORePK8gMaC0QOYAMyEEuzJnyUi", "uQiRzpo4DXghDmr9QzzfQu27cmVRsG"
CONFIG = {"token": TOKEN, "user": USER}
INVALID = b'{"user":"invalid","errors":["user identifier is invalid"],"status":0,"request":"5042853c"}'

JUDGEMENTS = [
    # answer                                            what became of it
    (reply(200, b'{"status":1,"request":"647d2300"}'),  "sent"),
    (reply(400, INVALID),                               "permanent"),
    (reply(401),                                        "permanent"),
    (reply(413),                                        "permanent"),
    (reply(429),                                        "retry"),          # the application's month is used up
    (reply(429, headers=[("Retry-After", "600")]),      "throttled(600)"),
    (reply(500),                                        "retry"),
    (reply(502),                                        "retry"),
    (reply(410),                                        "gone"),
    (target.hang_up,                                    "retry"),
]  # fmt: skip


@pytest.fixture
def pushover(hook) -> Pushover:
    hook.otherwise = reply(200, b'{"status":1}')
    return Pushover(hook.url("").rstrip("/"))


def fields(got) -> dict[str, str]:
    assert (got.path, got.headers["content-type"]) == (
        "/1/messages.json",
        "application/x-www-form-urlencoded",
    )
    return {name: value for name, [value] in parse_qs(got.body.decode(), strict_parsing=True).items()}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, pushover, answer, meaning):
    hook.script(answer)
    word, said = became(pushover, CONFIG)
    assert word == meaning
    assert TOKEN not in said
    assert USER not in said
    assert len(hook.received) == 1


def test_sends_a_form(hook, pushover):
    assert became(pushover, CONFIG | {"device": "phone_1"}) == ("sent", "")
    assert fields(hook.received[0]) == {
        "token": TOKEN,
        "user": USER,
        "device": "phone_1",
        "title": "DOWN: Shop (status) ☠",
        "message": 'Shop is down since 12:00.\nIt answered 500 & said "no".',
        "priority": "1",
        "url": LINK,
        "url_title": "Incident",
    }


@pytest.mark.parametrize(("severity", "priority"), [("critical", "1"), ("warning", "0"), ("info", "-1")])
def test_never_rings_until_somebody_confirms(hook, pushover, severity, priority):
    became(pushover, CONFIG, severity=severity)
    assert fields(hook.received[0])["priority"] == priority


def test_cuts_what_is_too_long_and_leaves_out_a_link_that_is(hook, pushover):
    links = {"Acknowledge": "https://example.com/a/", "Incident": "https://example.com/" + "x" * 600}
    became(pushover, CONFIG, subject="s" * 300, text="☠" * 2000, links=links)
    sent = fields(hook.received[0])
    assert (len(sent["title"]), len(sent["message"])) == (250, 1024)
    assert "url" not in sent


def test_never_sends_an_empty_message(hook, pushover):
    became(pushover, CONFIG, text="", links={})
    assert fields(hook.received[0])["message"] == "DOWN: Shop (status) ☠"


COMPLAINTS = [
    # given                                    what is wrong
    (CONFIG,                                   set()),
    (CONFIG | {"device": "phone"},             set()),
    (CONFIG | {"device": ""},                  set()),
    ({},                                       {"token", "user"}),
    ({"token": TOKEN},                         {"user"}),
    (CONFIG | {"token": TOKEN[1:]},            {"token"}),
    (CONFIG | {"user": USER + "&"},            {"user"}),
    (CONFIG | {"user": 5},                     {"user"}),
    (CONFIG | {"device": "my phone"},          {"device"}),
    (CONFIG | {"device": "x" * 26},            {"device"}),
    (CONFIG | {"priority": 2},                 {"priority"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(TRANSPORTS["pushover"], given)
    assert set(found) == wrong
    assert TOKEN[1:] not in str(found)
    assert USER not in str(found)


def test_tells_people_at_their_pace():
    assert not TRANSPORTS["pushover"].for_machines
    assert TRANSPORTS["pushover"].rate_per_minute == 30
    assert TRANSPORTS["pushover"].secret_fields == {"token", "user"}
    assert TRANSPORTS["pushover"].destination(CONFIG) == "api.pushover.net:443"
