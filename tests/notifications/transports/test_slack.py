"""Slack: escaped blocks, judged by its own words."""

import pytest

from notifications.transports import TRANSPORTS
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

slack = TRANSPORTS["slack"]
SECRET = "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"
URL = f"https://hooks.slack.com/services/{SECRET}"

JUDGEMENTS = [
    # answer                                              what became of it
    (reply(200, b"ok"),                                   "sent"),
    (reply(400, b"invalid_payload"),                      "permanent"),
    (reply(400, b"no_text"),                              "permanent"),
    (reply(403, b"action_prohibited"),                    "permanent"),  # until an administrator allows it again
    (reply(403, b"posting_to_general_channel_denied"),    "permanent"),
    (reply(403, b"invalid_token"),                        "gone"),
    (reply(403, b"team_disabled"),                        "gone"),
    (reply(403, b"<html>a proxy</html>"),                 "permanent"),
    (reply(404, b"no_service"),                           "gone"),
    (reply(404, b"no_active_hooks"),                      "gone"),
    (reply(404, b"no_team"),                              "gone"),
    (reply(404, b"channel_not_found"),                    "gone"),
    (reply(404, b"<html>a proxy</html>"),                 "permanent"),
    (reply(410, b"channel_is_archived"),                  "gone"),
    (reply(429, b"rate_limited", [("Retry-After", "30")]), "throttled(30)"),
    (reply(429, b"rate_limited"),                         "retry"),
    (reply(500, b"rollup_error"),                         "retry"),
    (reply(500, b"no_service"),                           "retry"),
    (reply(503, b"", [("Retry-After", "5")]),             "throttled(5)"),
    (target.redirect("/elsewhere"),                       "retry"),
    (target.hang_up,                                      "retry"),
]  # fmt: skip


def config(hook) -> dict[str, str]:
    return {"url": hook.url(f"/services/{SECRET}")}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(slack, config(hook))
    assert word == meaning
    assert SECRET not in said
    assert len(hook.received) == 1


def test_sends_a_headline_and_an_attachment_of_its_colour(hook):
    assert became(slack, config(hook)) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == (f"/services/{SECRET}", "application/json")
    assert got.json == {
        "text": "🔴 DOWN: Shop (status) ☠",
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "attachments": [
            {
                "color": "#d32f2f",
                "blocks": [
                    {
                        "type": "section",
                        "text": {
                            "type": "plain_text",
                            "text": 'Shop is down since 12:00.\nIt answered 500 &amp; said "no".',
                            "emoji": False,
                        },
                    },
                    {
                        "type": "section",
                        "text": {
                            "type": "mrkdwn",
                            "text": f"<{LINK}|Incident> · <https://wiki.example.com/shop|Runbook>",
                        },
                    },
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("kind", "color"), [("opened", "#d32f2f"), ("resolved", "#2e7d32"), ("degraded", "#f9a825")]
)
def test_shows_by_colour_what_happened(hook, kind, color):
    became(slack, config(hook), kind=kind)
    assert hook.received[0].json["attachments"][0]["color"] == color


EVIL = "<!channel> <@U1> <https://evil.example|bank> &lt; *b* @here"
SAFE = "&lt;!channel&gt; &lt;@U1&gt; &lt;https://evil.example|bank&gt; &amp;lt; *b* @here"


def test_lets_no_text_mention_anybody_or_become_a_link(hook):
    became(slack, config(hook), subject=EVIL, text=EVIL, links={EVIL: "https://a.example/?<!channel>|&b=1"})
    got = hook.received[0].json
    text, links = (block["text"] for block in got["attachments"][0]["blocks"])
    assert got["text"] == f"🔴 {SAFE}"
    assert text["text"] == SAFE  # plain_text, in which *b* is no emphasis
    assert links["text"] == f"<https://a.example/?%3C!channel%3E%7C&amp;b=1|{SAFE}>"


def test_cuts_what_is_too_long(hook):
    links = {f"{n}": "https://a.example/" + "x" * 1500 for n in range(5)}
    became(slack, config(hook), subject="&" * 5000, text="☠&" * 5000, links=links)
    got = hook.received[0].json
    texts = [got["text"], *(block["text"]["text"] for block in got["attachments"][0]["blocks"])]
    assert all(0 < len(text) <= 3000 for text in texts)
    assert texts[0].endswith("&amp;…") and texts[1].endswith("…") and texts[2].count("|") == 1


def test_leaves_out_what_there_is_not(hook):
    became(slack, config(hook), text="", links={})
    [block] = hook.received[0].json["attachments"][0]["blocks"]
    assert block["text"]["text"] == "DOWN: Shop (status) ☠"  # an empty one is refused


COMPLAINTS = [
    # given                                      what is wrong
    ({"url": URL},                               set()),
    ({},                                         {"url"}),
    ({"url": ""},                                {"url"}),
    ({"url": 5},                                 {"url"}),
    ({"url": URL.replace("https", "http")},      {"url"}),
    ({"url": "hooks.slack.com/services/" + SECRET}, {"url"}),
    ({"url": "https://10.0.0.1/" + SECRET},      {"url"}),
    ({"url": f"https://u:p@a.example/{SECRET}"}, {"url"}),
    ({"url": URL, "channel": "#ops"},            {"channel"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(slack, given)
    assert set(found) == wrong
    assert SECRET not in str(found)


def test_tells_people_at_their_pace():
    assert not slack.for_machines
    assert slack.rate_per_minute == 60
    assert slack.secret_fields == {"url"}
    assert slack.destination({"url": URL}) == "hooks.slack.com:443"
