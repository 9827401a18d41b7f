"""Discord: embeds that mention nobody, judged as its documentation asks."""

import json

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.chat import ZERO_WIDTH_SPACE as Z
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

discord = TRANSPORTS["discord"]
TOKEN = "aB3_" * 17
PATH = f"/api/webhooks/123456789012345678/{TOKEN}"
URL = f"https://discord.com{PATH}"
UNKNOWN = b'{"message": "Unknown Webhook", "code": 10015}'
SLOWER = b'{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}'

JUDGEMENTS = [
    # answer                                                what became of it
    (reply(200, b'{"id": "1"}'),                            "sent"),
    (reply(204, b""),                                       "sent"),
    (reply(400, b'{"code": 50035, "errors": {}}'),          "permanent"),
    (reply(401, b'{"code": 50027}'),                        "gone"),  # an invalid token, and never to be tried again
    (reply(403, b'{"code": 50013}'),                        "permanent"),
    (reply(404, UNKNOWN),                                   "gone"),
    (reply(404, b"whatever"),                               "gone"),
    (reply(429, SLOWER, [("Retry-After", "65")]),           "throttled(64.57)"),
    (reply(429, b"<html>", [("Retry-After", "65")]),        "throttled(65)"),  # Cloudflare, before Discord
    (reply(429, b'{"retry_after": "soon"}'),                "retry"),
    (reply(429, b'{"retry_after": -1}', [("Retry-After", "7")]), "throttled(7)"),
    (reply(429, b'{"retry_after": 1e999}'),                 "retry"),
    (reply(500),                                            "retry"),
    (reply(502),                                            "retry"),
    (target.redirect("/elsewhere"),                         "retry"),
    (target.hang_up,                                        "retry"),
]  # fmt: skip


def config(hook, query: str = "") -> dict[str, str]:
    return {"url": hook.url(PATH + query)}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(discord, config(hook))
    assert word == meaning
    assert TOKEN not in said
    assert len(hook.received) == 1


def test_sends_a_headline_and_an_embed(hook):
    assert became(discord, config(hook)) == ("sent", "")
    [got] = hook.received
    assert got.headers["content-type"] == "application/json"
    assert got.json == {
        "content": r"🔴 DOWN: Shop \(status\) ☠",
        "embeds": [
            {
                "description": 'Shop is down since 12:00.\nIt answered 500 & said "no".\n\n'
                f"[Incident]({LINK}) · [Runbook](https://wiki.example.com/shop)",
                "color": 0xD32F2F,
            }
        ],
        "allowed_mentions": {"parse": []},
    }


WAITING = [
    # query of the URL, as it is asked for: only so does Discord say whether it was stored
    ("", "?wait=true"),
    ("?thread_id=5", "?thread_id=5&wait=true"),
    ("#fragment", "?wait=true"),
]


@pytest.mark.parametrize(("query", "asked"), WAITING)
def test_waits_until_it_is_stored(hook, query, asked):
    became(discord, config(hook, query))
    assert hook.received[0].path == PATH + asked


EVIL = "@everyone <@&1> [bank](https://evil.example) **b**"
SAFE = rf"@{Z}everyone <{Z}@&1\> \[bank\]\(https://evil.example\) \*\*b\*\*"


def test_lets_no_text_mention_anybody_or_become_markup(hook):
    became(discord, config(hook), subject=EVIL, text=EVIL, links={})
    got = hook.received[0].json
    assert (got["content"], got["embeds"][0]["description"]) == (f"🔴 {SAFE}", SAFE)


def test_cuts_what_is_too_long(hook):
    links = {f"{n}": "https://a.example/" + "x" * (500 + n * 50) for n in range(5)}
    became(discord, config(hook), subject="*" * 5000, text="🔴*" * 5000, links=links)
    got = hook.received[0].json
    [embed] = got["embeds"]
    assert len(got["content"].encode("utf-16-le")) // 2 <= 2000
    assert 4000 < len(embed["description"].encode("utf-16-le")) // 2 <= 4096
    assert embed["description"].count("](https://a.example/") == 2, "those that are not too long themselves"
    assert len(json.dumps(got)) < 30_000


COMPLAINTS = [
    # given                                      what is wrong
    ({"url": URL},                               set()),
    ({},                                         {"url"}),
    ({"url": None},                              {"url"}),
    ({"url": [URL]},                             {"url"}),
    ({"url": URL.replace("https", "http")},      {"url"}),
    ({"url": f"https://127.0.0.2.nip/\n{TOKEN}"}, {"url"}),
    ({"url": URL, "username": "me"},             {"username"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(discord, given)
    assert set(found) == wrong
    assert TOKEN not in str(found)


def test_tells_people_at_their_pace():
    assert not discord.for_machines
    assert discord.rate_per_minute == 30
    assert discord.secret_fields == {"url"}
    assert discord.destination({"url": URL}) == "discord.com:443"
