"""Mattermost: Markdown that mentions nobody, judged by status and error id."""

import pytest

from notifications.transports import TRANSPORTS
from notifications.transports.chat import ZERO_WIDTH_SPACE as Z
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

mattermost = TRANSPORTS["mattermost"]
ID = "x7k3c9m1p5q8r2s4t6u0v1w3y5"
URL = f"https://chat.example.com/hooks/{ID}"
INVALID = b'{"id": "web.incoming_webhook.invalid.app_error", "message": "Ung\\u00fcltiger Webhook", "status_code": 400}'

JUDGEMENTS = [
    # answer                                                what became of it
    (reply(200, b"ok"),                                     "sent"),
    (reply(400, INVALID),                                   "gone"),  # it was deleted
    (reply(400, b'{"id": "web.incoming_webhook.text.app_error"}'), "permanent"),
    (reply(400, b"Bad Request"),                            "permanent"),
    (reply(403, b'{"id": "web.incoming_webhook.permissions.app_error"}'), "permanent"),
    (reply(404, b'{"id": "app.channel.get.existing.app_error"}'), "permanent"),
    (reply(404, b"404 page not found"),                     "permanent"),  # the URL is of something else
    (reply(413),                                            "permanent"),
    (reply(429, b"limit exceeded", [("Retry-After", "1")]), "throttled(1)"),
    (reply(429),                                            "retry"),
    (reply(500),                                            "retry"),
    (reply(501, b'{"id": "web.incoming_webhook.disabled.app_error"}'), "retry"),
    (reply(502),                                            "retry"),
    (target.redirect("/login"),                             "retry"),
    (target.hang_up,                                        "retry"),
]  # fmt: skip


def config(hook) -> dict[str, str]:
    return {"url": hook.url(f"/hooks/{ID}")}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(mattermost, config(hook))
    assert word == meaning
    assert ID not in said
    assert len(hook.received) == 1


def test_sends_a_headline_and_an_attachment(hook):
    assert became(mattermost, config(hook)) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == (f"/hooks/{ID}", "application/json")
    assert got.json == {
        "text": r"🔴 DOWN: Shop \(status\) ☠",
        "attachments": [
            {
                "fallback": r"🔴 DOWN: Shop \(status\) ☠",
                "color": "#d32f2f",
                "text": 'Shop is down since 12:00.\nIt answered 500 & said "no".\n\n'
                f"[Incident]({LINK}) · [Runbook](https://wiki.example.com/shop)",
            }
        ],
    }


EVIL = [
    # text, what is sent: neither Mattermost's own notation nor Slack's, which it reads too
    ("@all @here and @channel.", f"@{Z}all @{Z}here and @{Z}channel."),
    ("_@all", rf"\_@{Z}all"),
    ("<!channel> <!here>", rf"<{Z}!channel\> <{Z}!here\>"),
    ("<https://evil.example|bank>", rf"<{Z}https://evil.example\|bank\>"),
    ("[bank](https://evil.example)", r"\[bank\]\(https://evil.example\)"),
    ("| a | b |\n|---|---|", "\\| a \\| b \\|\n\\|---\\|---\\|"),
    ("~town-square #tag", r"\~town-square #tag"),
]


@pytest.mark.parametrize(("text", "shown"), EVIL)
def test_lets_no_text_mention_anybody_or_become_markup(hook, text, shown):
    became(mattermost, config(hook), subject=text, text=text, links={})
    got = hook.received[0].json
    assert got["text"] == f"🔴 {shown}"
    assert got["attachments"][0]["text"] == shown
    assert "@all" not in hook.received[0].body.decode()


def test_cuts_what_is_too_long(hook):
    became(mattermost, config(hook), subject="*" * 9000, text="🔴*" * 9000, links={})
    got = hook.received[0].json
    for text in (got["text"], got["attachments"][0]["text"]):
        assert 3900 < len(text.encode("utf-16-le")) // 2 <= 4000


COMPLAINTS = [
    # given                                      what is wrong
    ({"url": URL},                               set()),
    ({"url": URL.replace("https", "http")},      set()),  # in one's own network
    ({},                                         {"url"}),
    ({"url": 1.5},                               {"url"}),
    ({"url": f"http://192.168.1.5/hooks/{ID}"},  {"url"}),
    ({"url": f"ftp://chat.example.com/{ID}"},    {"url"}),
    ({"url": URL, "channel": "town-square"},     {"channel"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(mattermost, given)
    assert set(found) == wrong
    assert ID not in str(found)


def test_tells_people_at_their_pace():
    assert not mattermost.for_machines
    assert mattermost.rate_per_minute == 60
    assert mattermost.secret_fields == {"url"}
    assert mattermost.destination({"url": "http://chat.local:8065/hooks/x"}) == "chat.local:8065"
