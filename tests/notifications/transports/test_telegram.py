"""Telegram: plain text with buttons, judged by its error objects."""

import json

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.chat import ZERO_WIDTH_SPACE as Z
from notifications.transports.telegram import Telegram
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CONFIG = {"token": TOKEN, "chat_id": -1001234567890}


def error(code: int, words: str, **parameters: int) -> bytes:
    more = {"parameters": parameters} if parameters else {}
    return json.dumps({"ok": False, "error_code": code, "description": words} | more).encode()


SLOWER = error(429, "Too Many Requests: retry after 5", retry_after=5)
BUTTON = error(400, "Bad Request: inline keyboard button URL 'https://x' is invalid: Wrong HTTP URL")

JUDGEMENTS = [
    # answer                                                                what became of it
    (reply(200, b'{"ok": true, "result": {}}'),                             "sent"),
    (reply(400, error(400, "Bad Request: chat not found")),                 "permanent"),
    (reply(400, error(400, "Bad Request: message thread not found")),       "permanent"),
    (reply(400, error(400, "Bad Request: upgraded", migrate_to_chat_id=-1009)), "permanent"),
    (reply(400, b"not JSON"),                                               "permanent"),
    (reply(400, b'{"parameters": 5}'),                                      "permanent"),
    (reply(401, error(401, "Unauthorized")),                                "permanent"),
    (reply(403, error(403, "Forbidden: bot was blocked by the user")),      "permanent"),
    (reply(403, error(403, "Forbidden: bot was kicked from the group chat")), "permanent"),
    (reply(404, error(404, "Not Found")),                                   "permanent"),
    (reply(429, SLOWER),                                                    "throttled(5)"),
    (reply(429, SLOWER, [("Retry-After", "9")]),                            "throttled(5)"),
    (reply(429, b"<html>", [("Retry-After", "9")]),                         "throttled(9)"),
    (reply(429, b'{"parameters": {"retry_after": true}}'),                  "retry"),
    (reply(500, error(500, "Internal Server Error")),                       "retry"),
    (reply(502),                                                            "retry"),
    (target.redirect("/elsewhere"),                                         "retry"),
    (target.hang_up,                                                        "retry"),
]  # fmt: skip


@pytest.fixture
def telegram(hook) -> Telegram:
    hook.otherwise = reply(200, b'{"ok": true}')
    return Telegram(origin=hook.url("").rstrip("/"))


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, telegram, answer, meaning):
    hook.script(answer)
    word, said = became(telegram, CONFIG)
    assert word == meaning
    assert TOKEN not in said
    assert len(hook.received) == 1


def test_tells_the_number_that_a_group_got(hook, telegram):
    hook.script(reply(400, error(400, "Bad Request: upgraded", migrate_to_chat_id=-1009)))
    assert became(telegram, CONFIG)[1] == "The group has a new number: set chat_id to -1009."


def test_sends_plain_text_with_buttons(hook, telegram):
    assert became(telegram, CONFIG | {"thread_id": 5}) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == (f"/bot{TOKEN}/sendMessage", "application/json")
    assert got.json == {
        "chat_id": -1001234567890,
        "text": '🔴 DOWN: Shop (status) ☠\n\nShop is down since 12:00.\nIt answered 500 & said "no".',
        "link_preview_options": {"is_disabled": True},
        "message_thread_id": 5,
        "reply_markup": {
            "inline_keyboard": [
                [{"text": "Incident", "url": LINK}],
                [{"text": "Runbook", "url": "https://wiki.example.com/shop"}],
            ]
        },
    }


def test_lets_no_text_mention_anybody_or_become_markup(hook, telegram):
    became(telegram, CONFIG, subject="<b>*S*</b>", text="@bob_smith, [bank](https://evil.example)", links={})
    got = hook.received[0].json
    assert got["text"] == f"🔴 <b>*S*</b>\n\n@{Z}bob_smith, [bank](https://evil.example)"
    assert not {"parse_mode", "entities", "reply_markup"} & set(got)


PLACES = [
    # where a link leads, whether Telegram takes a button to it
    ("https://health.example.com/a", True),
    ("http://health.local:8000/a", True),
    ("http://localhost:8000/a", False),
    ("http://healthmon/a", False),
    ("http://10.0.0.5/a", False),
    ("http://[::1]/a", False),
]


@pytest.mark.parametrize(("url", "button"), PLACES)
def test_writes_a_link_out_where_a_button_would_be_refused(hook, telegram, url, button):
    became(telegram, CONFIG, text="Down.", links={"Incident": url})
    got = hook.received[0].json
    assert ("reply_markup" in got) == button
    assert got["text"].endswith("Down." if button else f"Down.\n\nIncident: {url}")


def test_sends_again_without_buttons_rather_than_not_at_all(hook, telegram):
    hook.script(reply(400, BUTTON))
    assert became(telegram, CONFIG) == ("sent", "")
    first, second = (got.json for got in hook.received)
    assert "reply_markup" in first and "reply_markup" not in second
    assert f"\n\nIncident: {LINK}\nRunbook: https://wiki.example.com/shop\nShop is down" in second["text"]


def test_does_not_go_on_if_that_is_refused_too(hook, telegram):
    hook.script(reply(400, BUTTON), reply(400, BUTTON))
    assert became(telegram, CONFIG)[0] == "permanent"
    assert len(hook.received) == 2


def test_cuts_what_is_too_long(hook, telegram):
    links = {f"{n}": f"http://healthmon/{n}" + "x" * (480 if n else 2000) for n in range(5)}
    became(telegram, CONFIG, subject="s" * 300, text="🔴" * 5000, links=links)
    text = hook.received[0].json["text"]
    assert 4000 < len(text.encode("utf-16-le")) // 2 <= 4096
    assert text.count("http://healthmon/") == 4


COMPLAINTS = [
    # given                                               what is wrong
    (CONFIG,                                              set()),
    (CONFIG | {"chat_id": "-1001234567890"},              set()),
    (CONFIG | {"chat_id": "@ops_room"},                   set()),
    (CONFIG | {"chat_id": 5, "thread_id": "7"},           set()),
    (CONFIG | {"thread_id": None},                        set()),
    ({},                                                  {"token", "chat_id"}),
    ({"token": TOKEN},                                    {"chat_id"}),
    (CONFIG | {"token": TOKEN.replace(":", "")},          {"token"}),
    (CONFIG | {"token": TOKEN + "/../x"},                 {"token"}),
    (CONFIG | {"token": TOKEN + "\n"},                    {"token"}),
    (CONFIG | {"token": 5},                               {"token"}),
    (CONFIG | {"chat_id": 0},                             {"chat_id"}),
    (CONFIG | {"chat_id": True},                          {"chat_id"}),
    (CONFIG | {"chat_id": 1.5},                           {"chat_id"}),
    (CONFIG | {"chat_id": 2**60},                         {"chat_id"}),
    (CONFIG | {"chat_id": "ops_room"},                    {"chat_id"}),
    (CONFIG | {"chat_id": "@1"},                          {"chat_id"}),
    (CONFIG | {"chat_id": "\u0661"},                      {"chat_id"}),
    (CONFIG | {"chat_id": [5]},                           {"chat_id"}),
    (CONFIG | {"thread_id": -1},                          {"thread_id"}),
    (CONFIG | {"thread_id": "general"},                   {"thread_id"}),
    (CONFIG | {"parse_mode": "HTML"},                     {"parse_mode"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(TRANSPORTS["telegram"], given)
    assert set(found) == wrong
    assert TOKEN not in str(found)


def test_keeps_numbers_as_numbers():
    given = CONFIG | {"chat_id": "-100", "thread_id": "7"}
    assert TRANSPORTS["telegram"].validate(given) == CONFIG | {"chat_id": -100, "thread_id": 7}


def test_tells_people_at_their_pace():
    telegram = TRANSPORTS["telegram"]
    assert not telegram.for_machines
    assert telegram.rate_per_minute == 20
    assert telegram.secret_fields == {"token"}
    assert telegram.destination(CONFIG) == "api.telegram.org:443"
