"""Microsoft Teams: an Adaptive Card for a workflow, judged by the codes of its errors."""

import json

import pytest

from notifications.transports import TRANSPORTS
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

teams = TRANSPORTS["teams"]
SIG = "aB3-dE6_gH9aB3-dE6_gH9aB3-dE6_gH9"
PATH = f"/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=1&sig={SIG}"
URL = f"https://prod-01.westeurope.logic.azure.com:443{PATH}"


def error(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "No card for you."}}).encode()


OLD = b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x."

JUDGEMENTS = [
    # answer                                                what became of it
    (reply(202, b""),                                       "sent"),
    (reply(200, b"1"),                                      "sent"),
    (reply(200, OLD),                                       "retry"),
    (reply(400, error("TriggerInputSchemaMismatch")),       "permanent"),
    (reply(400, error("WorkflowTriggerIsNotEnabled")),      "permanent"),
    (reply(401, error("DirectApiAuthorizationRequired")),   "permanent"),
    (reply(403),                                            "permanent"),
    (reply(404, error("WorkflowNotFound")),                 "gone"),
    (reply(404, b'{"error": "not found"}'),                 "permanent"),
    (reply(404, b'[]'),                                     "permanent"),
    (reply(410),                                            "gone"),
    (reply(413),                                            "permanent"),
    (reply(429, error("WorkflowTriggerRequestRateExceeded"), [("Retry-After", "12")]), "throttled(12)"),
    (reply(429),                                            "retry"),
    (reply(502, error("NoResponse")),                       "retry"),
    (target.redirect("/elsewhere"),                         "retry"),
    (target.hang_up,                                        "retry"),
]  # fmt: skip


def config(hook) -> dict[str, str]:
    return {"url": hook.url(PATH)}


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(teams, config(hook))
    assert word == meaning
    assert SIG not in said
    assert len(hook.received) == 1


def test_says_what_its_owner_can_do(hook):
    hook.script(reply(400, error("WorkflowTriggerIsNotEnabled")))
    assert became(teams, config(hook)) == ("permanent", "The workflow is switched off.")


def card(hook) -> dict:
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == (PATH, "application/json")
    message = got.json
    assert message["type"] == "message"
    [attachment] = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    return attachment["content"]


def run(text: str, **style: str) -> dict:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text} | style]}


def test_sends_a_card(hook):
    assert became(teams, config(hook)) == ("sent", "")
    assert card(hook) == {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [
            {
                "type": "Container",
                "style": "attention",
                "bleed": True,
                "items": [run("🔴 DOWN: Shop (status) ☠", weight="Bolder", size="Medium")],
            },
            run("Shop is down since 12:00."),
            run('It answered 500 & said "no".'),
        ],
        "actions": [
            {"type": "Action.OpenUrl", "title": "Incident", "url": LINK},
            {"type": "Action.OpenUrl", "title": "Runbook", "url": "https://wiki.example.com/shop"},
        ],
    }


@pytest.mark.parametrize(
    ("kind", "style"), [("resolved", "good"), ("degraded", "warning"), ("test", "accent")]
)
def test_shows_by_colour_what_happened(hook, kind, style):
    became(teams, config(hook), kind=kind)
    assert card(hook)["body"][0]["style"] == style


def test_lets_no_text_become_markup(hook):
    """Only text runs carry words: they are shown as they are, where a TextBlock would read Markdown."""
    evil = "<at>all</at> [bank](https://evil.example) **b**"
    became(teams, config(hook), subject=evil, text=evil, links={})
    sent = card(hook)
    assert sent["body"][1] == run(evil)
    assert sent["actions"] == []
    assert '"TextBlock"' not in json.dumps(sent) and "entities" not in json.dumps(sent)


@pytest.mark.parametrize("text", ["☠" * 50_000, "☠\n" * 50_000, "\n" * 50_000, "\U0001f534" * 50_000])
def test_keeps_below_what_teams_takes(hook, text):
    links = {f"{n}" * 200: "https://a.example/" + "x" * (1400 + n) for n in range(9)}
    became(teams, config(hook), subject="☠" * 5000, text=text, links=links)
    assert len(hook.received[0].body) < 28_000
    assert len(card(hook)["actions"]) == 4


COMPLAINTS = [
    # given                                      what is wrong
    ({"url": URL},                               set()),
    ({},                                         {"url"}),
    ({"url": {}},                                {"url"}),
    ({"url": URL.replace("https", "http")},      {"url"}),
    ({"url": URL + " "},                         {"url"}),
    ({"url": URL, "title": "x"},                 {"title"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(teams, given)
    assert set(found) == wrong
    assert SIG not in str(found)


def test_tells_people_at_their_pace():
    assert not teams.for_machines
    assert teams.rate_per_minute == 60
    assert teams.secret_fields == {"url"}
    assert teams.destination({"url": URL}) == "prod-01.westeurope.logic.azure.com:443"
