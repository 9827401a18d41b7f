"""SMS through Twilio: a form with a login, judged as its documentation says."""

import base64
from urllib.parse import parse_qs

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.twilio import Twilio
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

SID, TOKEN = "AC" + "0123456789abcdef" * 2, "fedcba9876543210" * 2
CONFIG = {"account_sid": SID, "auth_token": TOKEN, "from": "+15005550006", "to": "+4915112345678"}


def error(status: int, code: int, **more):
    words = f'{{"code": {code}, "message": "…", "more_info": "https://www.twilio.com/docs/errors/{code}"}}'
    return reply(status, words.encode(), **more)


JUDGEMENTS = [
    # answer                                            what became of it
    (reply(201, b'{"sid": "SM1", "status": "queued"}'), "sent"),
    (reply(200),                                        "sent"),
    (error(400, 21211),                                 "permanent"),      # not a number
    (error(400, 21610),                                 "permanent"),      # its owner said STOP
    (error(400, 21611),                                 "retry"),          # the sender's queue is full
    (reply(400, b"not json 21611"),                     "permanent"),
    (reply(400, b'[21611]'),                            "permanent"),
    (error(401, 20003),                                 "permanent"),
    (error(403, 20005),                                 "permanent"),
    (error(404, 20404),                                 "permanent"),
    (error(429, 20429),                                 "retry"),
    (error(429, 20429, headers=[("Retry-After", "2")]), "throttled(2)"),
    (reply(410),                                        "gone"),
    (reply(500),                                        "retry"),
    (reply(503),                                        "retry"),
    (target.hang_up,                                    "retry"),
]  # fmt: skip


@pytest.fixture
def twilio(hook) -> Twilio:
    hook.otherwise = reply(201)
    return Twilio(hook.url("").rstrip("/"))


def fields(got) -> dict[str, str]:
    assert got.headers["content-type"] == "application/x-www-form-urlencoded"
    return {name: value for name, [value] in parse_qs(got.body.decode(), strict_parsing=True).items()}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, twilio, answer, meaning):
    hook.script(answer)
    word, said = became(twilio, CONFIG)
    assert word == meaning
    assert TOKEN not in said
    assert len(hook.received) == 1


def test_sends_one_sms_to_one_number(hook, twilio):
    assert became(twilio, CONFIG) == ("sent", "")
    [got] = hook.received
    assert got.path == f"/2010-04-01/Accounts/{SID}/Messages.json"
    assert got.headers["authorization"] == "Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
    assert fields(got) == {
        "To": "+4915112345678",
        "From": "+15005550006",
        "Body": 'DOWN: Shop (status) ☠\nShop is down since 12:00.\nIt answered 500 & said "no".',
    }


def test_sends_through_a_messaging_service(hook, twilio):
    became(twilio, CONFIG | {"from": "MG" + "a" * 32})
    sent = fields(hook.received[0])
    assert sent["MessagingServiceSid"] == "MG" + "a" * 32
    assert "From" not in sent


def test_cuts_the_evidence_and_keeps_the_way_to_it(hook, twilio):
    became(twilio, CONFIG, text="x" * 5000)
    became(twilio, CONFIG, text="x" * 5000, links={"Incident": "https://example.com/" + "x" * 2000})
    first, second = (fields(got)["Body"] for got in hook.received)
    assert len(first) == len(second) == 320
    assert first.endswith(f"x…\n{LINK}")
    assert second.endswith("x…")


COMPLAINTS = [
    # given                                    what is wrong
    (CONFIG,                                   set()),
    (CONFIG | {"from": "MG" + "0" * 32},       set()),
    (CONFIG | {"from": "Acme Alerts"},         set()),
    ({},                                       {"account_sid", "auth_token", "from", "to"}),
    (CONFIG | {"account_sid": "SK" + "0" * 32}, {"account_sid"}),
    (CONFIG | {"account_sid": SID + "/../x"},  {"account_sid"}),
    (CONFIG | {"auth_token": TOKEN[1:]},       {"auth_token"}),
    (CONFIG | {"auth_token": 5},               {"auth_token"}),
    (CONFIG | {"from": "12345"},               {"from"}),
    (CONFIG | {"from": "Acme Alerts Ltd"},     {"from"}),
    (CONFIG | {"from": ["+15005550006"]},      {"from"}),
    (CONFIG | {"to": "015112345678"},          {"to"}),
    (CONFIG | {"to": "+49 151 12345678"},      {"to"}),
    (CONFIG | {"to": "+0151123456"},           {"to"}),
    (CONFIG | {"to": "+1234567890123456"},     {"to"}),
    (CONFIG | {"to": ["+4915112345678"]},      {"to"}),
    (CONFIG | {"to": "+4915112345678,+15005550006"}, {"to"}),
    (CONFIG | {"to": "+٤٩١٥١١٢٣٤٥"},           {"to"}),
    (CONFIG | {"body": "x"},                   {"body"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(TRANSPORTS["twilio"], given)
    assert set(found) == wrong
    assert TOKEN[1:] not in str(found)


def test_tells_people_at_their_pace():
    assert not TRANSPORTS["twilio"].for_machines
    assert TRANSPORTS["twilio"].rate_per_minute == 60
    assert TRANSPORTS["twilio"].secret_fields == {"auth_token"}
    assert TRANSPORTS["twilio"].destination(CONFIG) == "api.twilio.com:443"
