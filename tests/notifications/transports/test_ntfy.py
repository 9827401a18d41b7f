"""ntfy: JSON below its limits, as loud as it is severe."""

import pytest

from notifications.transports import TRANSPORTS
from tests.support import target
from tests.support.sending import LINK, became, complaint
from tests.support.target import reply

ntfy = TRANSPORTS["ntfy"]
TOKEN = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"
LIMIT = b'{"code":42901,"http":429,"error":"limit reached: too many requests","link":"https://ntfy.sh/docs"}'
FULL = b'{"code":50701,"http":507,"error":"cannot publish to UnifiedPush topic without subscriber"}'

JUDGEMENTS = [
    # answer                                            what became of it
    (reply(200, b'{"id":"1"}'),                         "sent"),
    (reply(400, b'{"code":40009,"http":400}'),          "permanent"),
    (reply(401, b'{"code":40101,"http":401}'),          "permanent"),
    (reply(403, b'{"code":40301,"http":403}'),          "permanent"),
    (reply(404, b'{"code":40401,"http":404}'),          "permanent"),
    (reply(413, b'{"code":41303,"http":413}'),          "permanent"),
    (reply(429, LIMIT),                                 "retry"),
    (reply(429, LIMIT, [("Retry-After", "5")]),         "throttled(5)"),
    (reply(500, b'{"code":50001,"http":500}'),          "retry"),
    (reply(507, FULL),                                  "retry"),
    (target.redirect("/elsewhere"),                     "retry"),
    (target.hang_up,                                    "retry"),
]  # fmt: skip


def config(hook, **more) -> dict[str, str]:
    return {"server": hook.url("").rstrip("/"), "topic": "ops-Alerts_1"} | more


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(ntfy, config(hook, token=TOKEN))
    assert word == meaning
    assert TOKEN not in said
    assert len(hook.received) == 1


def test_publishes_with_a_click_and_actions(hook):
    assert became(ntfy, config(hook, token=TOKEN)) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["content-type"]) == ("/", "application/json")
    assert got.headers["authorization"] == f"Bearer {TOKEN}"
    assert got.json == {
        "topic": "ops-Alerts_1",
        "title": "🔴 DOWN: Shop (status) ☠",
        "message": 'Shop is down since 12:00.\nIt answered 500 & said "no".',
        "priority": 5,
        "click": LINK,
        "actions": [
            {"action": "view", "label": "Incident", "url": LINK},
            {"action": "view", "label": "Runbook", "url": "https://wiki.example.com/shop"},
        ],
    }


def test_needs_no_token(hook):
    became(ntfy, config(hook))
    assert "authorization" not in hook.received[0].headers


PRIORITIES = [
    # kind, severity, priority: 5 is the loudest, 3 the usual
    ("opened", "critical", 5),
    ("opened", "warning", 4),
    ("opened", "info", 3),
    ("reminder", "critical", 5),
    ("opened", "unheard-of", 5),
    ("resolved", "critical", 3),
    ("recovered", "warning", 3),
    ("acknowledged", "critical", 3),
    ("test", "critical", 3),
]


@pytest.mark.parametrize(("kind", "severity", "priority"), PRIORITIES)
def test_is_as_loud_as_it_is_severe(hook, kind, severity, priority):
    became(ntfy, config(hook), kind=kind, severity=severity)
    assert hook.received[0].json["priority"] == priority


def test_leads_to_no_deed_by_a_tap(hook):
    became(ntfy, config(hook), links={"Acknowledge": "https://hm.example/ack"})
    got = hook.received[0].json
    assert "click" not in got
    assert [action["label"] for action in got["actions"]] == ["Acknowledge"]


def test_lets_no_text_become_markup(hook):
    became(ntfy, config(hook), text="**b** [bank](https://evil.example)", links={})
    got = hook.received[0].json
    assert got["message"] == "**b** [bank](https://evil.example)"
    assert not {"markdown", "actions", "click", "attach"} & set(got)


@pytest.mark.parametrize("char", ["x", "☠", "🔴", '"', "\\", "\n", "\x01", "\ud800"])
def test_keeps_below_what_ntfy_takes(hook, char):
    links = {name: f"https://a.example/{name}" + "x" * 2000 for name in ("Incident", "b", "c", "d")}
    became(ntfy, config(hook), subject=char * 9000, text=char * 9000, links=links)
    [got] = hook.received
    assert len(got.body) <= 8192
    assert len(got.json["message"].encode()) <= 4096
    assert got.json["message"].endswith("…")
    assert len(got.json.get("actions", ())) <= 3


COMPLAINTS = [
    # given                                                       what is wrong
    ({"topic": "ops"},                                            set()),
    ({"topic": "ops", "token": TOKEN},                            set()),
    ({"topic": "ops", "server": "http://ntfy.local:8080"},        set()),  # in one's own network
    ({},                                                          {"topic"}),
    ({"topic": "a/b"},                                            {"topic"}),
    ({"topic": "x" * 65},                                         {"topic"}),
    ({"topic": "ops\n"},                                          {"topic"}),
    ({"topic": 5},                                                {"topic"}),
    ({"topic": "ops", "server": "https://ntfy.sh/ops"},           {"server"}),
    ({"topic": "ops", "server": "https://ntfy.sh/?x"},            {"server"}),
    ({"topic": "ops", "server": "https://ntfy.sh/#x"},            {"server"}),
    ({"topic": "ops", "server": "ntfy.sh"},                       {"server"}),
    ({"topic": "ops", "server": "http://127.1.1.1:80@evil/"},     {"server"}),
    ({"topic": "ops", "server": "http://10.0.0.1/"},              {"server"}),
    ({"topic": "ops", "server": 5},                               {"server"}),
    ({"topic": "ops", "token": TOKEN + "\r\nX: y"},               {"token"}),
    ({"topic": "ops", "token": TOKEN + "\u00e9"},                 {"token"}),
    ({"topic": "ops", "token": 5},                                {"token"}),
    ({"topic": "ops", "priority": 5},                             {"priority"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wrong"), COMPLAINTS)
def test_names_what_is_wrong(given, wrong):
    found = complaint(ntfy, given)
    assert set(found) == wrong
    assert TOKEN not in str(found)


def test_completes_a_configuration():
    assert ntfy.validate({"topic": "ops"}) == {"topic": "ops", "server": "https://ntfy.sh"}
    assert ntfy.validate({"topic": "ops", "server": "https://n.example/"})["server"] == "https://n.example"


def test_tells_people_at_their_pace():
    assert not ntfy.for_machines
    assert ntfy.rate_per_minute == 12
    assert ntfy.secret_fields == {"token"}
    assert ntfy.destination({"server": "https://ntfy.sh", "topic": "ops"}) == "ntfy.sh:443"
