"""How alerts are worded."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from notifications import messages, team_templates
from notifications.messages import KINDS, Facts, Message

AT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
URL = "https://hm.example/admin/incidents/incident/7/change/"
RUNBOOK = "https://wiki.example/shop"
WATCHED = "\n\nWatched: https://shop.example/health"


def message(kind="opened", **fields):
    given = {
        "team_id": 1, "at": AT, "incident_id": 7, "incident_status": "open", "reason": "status",
        "detail": "It answered 500.", "opened_at": AT, "monitor_id": 3, "monitor_name": "Shop",
        "monitor_url": "https://shop.example/health", "runbook_url": RUNBOOK,
    }  # fmt: skip
    return Message(kind=kind, **(given | fields))


def of_a_monitor(kind, **fields):
    """A message that no incident belongs to."""
    alone = {"incident_id": None, "incident_status": "", "opened_at": None, "reason": "slow"}
    return message(kind, **(alone | {"detail": "It took 2,300 ms."} | fields))


def test_message(kind="test", **fields):
    return Message(kind=kind, team_id=1, at=AT, **fields)


test_message.__test__ = False

SUBJECTS = [
    # message, its subject
    (message(), "DOWN: Shop (status)"),
    (message("resolved", resolution="recovered"), "UP: Shop"),
    (message("resolved", resolution="by_person"), "RESOLVED: Shop"),
    (message("resolved", resolution="paused"), "RESOLVED: Shop"),
    (message("resolved", resolution="deleted"), "RESOLVED: Shop"),
    (message("acknowledged"), "ACKNOWLEDGED: Shop"),
    (message("reminder"), "STILL DOWN: Shop (status)"),
    (message("escalated"), "ESCALATED: Shop (status)"),
    (of_a_monitor("degraded"), "SLOW: Shop"),
    (of_a_monitor("recovered"), "QUICK AGAIN: Shop"),
    (of_a_monitor("flapping"), "FLAPPING: Shop"),
    (of_a_monitor("certificate_expiring"), "CERTIFICATE EXPIRING: Shop"),
    (test_message("channel_failing", channel_name="Ops chat (slack)"), "CHANNEL FAILING: Ops chat (slack)"),
    (test_message(), "Test from healthmon"),
    (message(monitor_name="  Shop \r\n\t of\u2028Bob "), "DOWN: Shop of Bob (status)"),
    (message(monitor_name="Shop\0\x1b[31m\x7f"), "DOWN: Shop [31m (status)"),
    (message(monitor_name="Ünïcode ☠"), "DOWN: Ünïcode ☠ (status)"),
]


@pytest.mark.parametrize(("message", "subject"), SUBJECTS)
def test_says_in_the_subject_what_is_up(message, subject):
    assert messages.subject(message) == subject


@given(name=st.text(max_size=300), kind=st.sampled_from(KINDS))
def test_keeps_a_subject_on_one_line_of_at_most_200_characters(name, kind):
    subject = messages.subject(message(kind, monitor_name=name, channel_name=name))
    assert len(subject) <= 200
    assert len(subject.splitlines()) == 1
    assert subject == subject.strip()


TEXTS = [
    # message, its text
    (message(), f"Shop is down since 2026-03-01 12:00:05 UTC.\nIt answered 500.{WATCHED}"),
    (message(detail=""), f"Shop is down since 2026-03-01 12:00:05 UTC.\nReason: status.{WATCHED}"),
    (
        message(regions=("eu-west", "us-east")),
        f"Shop is down since 2026-03-01 12:00:05 UTC.\nIt answered 500.\nSeen from eu-west, us-east.{WATCHED}",
    ),
    # whoever has one region has not named it
    (
        message(regions=("default",)),
        f"Shop is down since 2026-03-01 12:00:05 UTC.\nIt answered 500.{WATCHED}",
    ),
    (
        message("reminder", at=AT + timedelta(minutes=35), regions=("eu-west",)),
        f"Shop is still down, for 35 min.\nIt answered 500.\nSeen from eu-west.{WATCHED}",
    ),
    (
        message("escalated", at=AT + timedelta(hours=1)),
        f"Shop is down for 1 h, and nobody has acknowledged it.\nIt answered 500.{WATCHED}",
    ),
    (
        message("resolved", resolution="recovered", resolved_at=AT + timedelta(minutes=2, seconds=3)),
        f"Shop: it answers again, 2026-03-01 12:02:08 UTC.\nIt was down for 2 min 3 s.{WATCHED}",
    ),
    (
        message("resolved", resolution="by_person", by="bob@example.com", resolved_at=AT + timedelta(days=1)),
        f"Shop: resolved by hand by bob@example.com, 2026-03-02 12:00:05 UTC.\nIt was down for 1 d.{WATCHED}",
    ),
    (
        message("resolved", resolution="paused", by="ada@example.com", resolved_at=AT),
        "Shop: the monitor was paused by ada@example.com, 2026-03-01 12:00:05 UTC.\n"
        f"It was down for less than a second.{WATCHED}",
    ),
    (
        message("resolved", resolution="deleted", resolved_at=AT + timedelta(hours=49, seconds=59)),
        f"Shop: the monitor was deleted, 2026-03-03 13:01:04 UTC.\nIt was down for 2 d 1 h.{WATCHED}",
    ),
    (
        message("acknowledged", by="bob@example.com", at=AT + timedelta(seconds=30)),
        f"Shop: acknowledged by bob@example.com, 2026-03-01 12:00:35 UTC.{WATCHED}",
    ),
    (
        message("acknowledged", by="link sent to Ops chat"),
        f"Shop: acknowledged by link sent to Ops chat, 2026-03-01 12:00:05 UTC.{WATCHED}",
    ),
    (of_a_monitor("degraded"), f"Shop is slow: It took 2,300 ms.{WATCHED}"),
    (of_a_monitor("degraded", detail=""), f"Shop is slow since 2026-03-01 12:00:05 UTC.{WATCHED}"),
    (of_a_monitor("recovered", detail=""), f"Shop is quick again, 2026-03-01 12:00:05 UTC.{WATCHED}"),
    (of_a_monitor("flapping", detail=""), f"Shop keeps going down and coming back.{WATCHED}"),
    (
        of_a_monitor("certificate_expiring", detail="It is good until 2026-03-08."),
        f"The certificate of Shop expires soon. It is good until 2026-03-08.{WATCHED}",
    ),
    (
        test_message("channel_failing", channel_name="Ops chat (slack)", detail="5 failed in a row."),
        "The channel Ops chat (slack) keeps failing: 5 failed in a row.",
    ),
    (
        test_message(),
        "This is a test from healthmon. If you can read it, alerts will reach you here.",
    ),
]


@pytest.mark.parametrize(("message", "text"), TEXTS)
def test_says_what_failed_since_when_and_from_where(message, text):
    assert messages.text(message) == text


@pytest.mark.parametrize("kind", KINDS)
def test_has_words_of_its_own_for_every_kind(kind):
    told = message(kind, channel_name="Ops chat", resolution="recovered")
    others = [other for other in KINDS if other != kind]
    assert messages.subject(told) not in {messages.subject(replace(told, kind=other)) for other in others}
    assert messages.text(told) not in {messages.text(replace(told, kind=other)) for other in others}


DURATIONS = [
    # seconds, words
    (-5, "less than a second"),
    (0.4, "less than a second"),
    (1, "1 s"),
    (59.6, "1 min"),
    (61, "1 min 1 s"),
    (3600, "1 h"),
    (3601, "1 h 1 s"),
    (86_399, "23 h 59 min"),
    (90_061, "1 d 1 h"),
    (100 * 86_400, "100 d"),
]


@pytest.mark.parametrize(("seconds", "words"), DURATIONS)
def test_words_a_duration_in_two_units(seconds, words):
    resolved = message("resolved", resolution="recovered", resolved_at=AT + timedelta(seconds=seconds))
    assert f"It was down for {words}." in messages.text(resolved)


# --- links and machines -----------------------------------------------------------------------------------------


def test_leads_to_runbook_and_incident():
    assert messages.links(message(), URL) == {"Runbook": RUNBOOK, "Incident": URL}
    assert messages.links(message("resolved"), URL) == {"Incident": URL}
    assert messages.links(message(runbook_url=""), "") == {}


WITH_LINKS = [
    # text, links, both
    ("It is down.", {}, "It is down."),
    ("It is down.", {"A": "https://a", "B": "https://b"}, "It is down.\n\nA: https://a\nB: https://b"),
    ("It is down.\n\nWatched: x", {"A": "https://a"}, "It is down.\n\nWatched: x\nA: https://a"),
]


@pytest.mark.parametrize(("text", "links", "both"), WITH_LINKS)
def test_writes_links_out_where_there_are_no_buttons(text, links, both):
    assert messages.with_links(text, links) == both


OF_INCIDENTS = ("opened", "resolved", "acknowledged", "reminder", "escalated")
OF_MONITORS = ("degraded", "recovered", "certificate_expiring", "flapping")
TYPES = [
    # message, type of its payload
    *[(message(kind), f"incident.{kind}") for kind in OF_INCIDENTS],
    *[(of_a_monitor(kind), f"monitor.{kind}") for kind in OF_MONITORS],
    (test_message("channel_failing", channel_name="Ops chat"), "channel.failing"),
    (test_message(), "test"),
]


@pytest.mark.parametrize(("message", "kind"), TYPES)
def test_names_the_kind_to_machines(message, kind):
    assert messages.payload(message, "acme", "")["type"] == kind
    assert {m.kind for m, _ in TYPES} == set(KINDS)


def test_tells_machines_all_there_is_to_know():
    body = messages.payload(message(severity="warning", resolution=""), "acme", URL)
    assert json.loads(json.dumps(body)) == {
        "type": "incident.opened",
        "timestamp": "2026-03-01T12:00:05Z",
        "data": {
            "severity": "warning",
            "incident": {
                "id": 7, "status": "open", "reason": "status", "opened_at": "2026-03-01T12:00:05Z",
                "resolved_at": None, "resolution": "", "url": URL,
            },
            "monitor": {
                "id": 3, "name": "Shop", "url": "https://shop.example/health", "runbook_url": RUNBOOK,
            },
            "team": {"slug": "acme"},
            "detail": "It answered 500.",
            "message": f"{messages.text(message())}\nRunbook: {RUNBOOK}\nIncident: {URL}",
        },
    }  # fmt: skip


def test_tells_machines_of_a_monitor_without_an_incident():
    data = messages.payload(of_a_monitor("degraded"), "acme", "")["data"]
    assert data["incident"] is None
    assert (data["monitor"]["id"], data["monitor"]["name"]) == (3, "Shop")
    data = messages.payload(test_message(), "acme", "")["data"]
    assert (data["incident"], data["monitor"]) == (None, None)


# --- a team's own words -----------------------------------------------------------------------------------------


def worded(told=None, subject_template="", text_template=""):
    return messages.worded(
        told or message(), team_name="Acme", incident_url=URL, subject_template=subject_template,
        text_template=text_template,
    )  # fmt: skip


def test_uses_a_teams_own_words_where_it_has_some():
    ours = (messages.subject(message()), messages.text(message()))
    assert worded() == ours
    assert worded(subject_template="[{{team}}] {{monitor.name}} {{kind}}") == ("[Acme] Shop opened", ours[1])
    assert worded(text_template="{{reason}}: {{detail}} {{runbook}}") == (
        ours[0], f"status: It answered 500. {RUNBOOK}",
    )  # fmt: skip


def test_keeps_an_own_subject_on_one_line():
    subject, text = worded(
        message(monitor_name="Shop\r\nBcc: eve@example.com", detail="x" * 500),
        "{{monitor.name}}\nX-Evil: 1\u2028{{detail}}",
        "{{monitor.name}}\nsecond line",
    )
    assert subject.startswith("Shop Bcc: eve@example.com X-Evil: 1 xxx")
    assert len(subject) == 200
    assert text.endswith("\nsecond line")


@pytest.mark.parametrize("template", ["{{ monitor.secret }}", "{{#by}}", "{{ monitor.name }} {{"])
def test_falls_back_to_our_words_and_says_so(template):
    ours = worded()
    with capture_logs() as logs:
        assert worded(subject_template=template) == ours
        assert worded(text_template=template) == ours
    assert [line["event"] for line in logs] == ["template_invalid"] * 2
    assert logs[0]["team_id"] == 1


@pytest.mark.parametrize("template", ["{{#by}}by {{by}}{{/by}}", " \n ", "{{by}}"])
def test_has_our_words_where_a_template_comes_out_empty(template):
    assert worded(subject_template=template, text_template=template) == worded()


@pytest.mark.parametrize("kind", KINDS)
def test_has_a_text_for_every_name_a_template_may_use(kind):
    facts = messages.facts_of(message(kind), "Acme", URL)
    assert list(facts) == list(team_templates.NAMES)
    assert all(isinstance(value, str) for value in facts.values())


def test_knows_how_long_it_lasted_once_it_has():
    assert messages.facts_of(message(), "Acme", "")["duration"] == ""
    later = AT + timedelta(minutes=35)
    assert messages.facts_of(message("reminder", at=later), "Acme", "")["duration"] == "35 min"
    assert messages.facts_of(message("resolved", resolved_at=later), "Acme", "")["duration"] == "35 min"
    assert messages.facts_of(of_a_monitor("degraded"), "Acme", "")["duration"] == ""


# --- many as one ------------------------------------------------------------------------------------------------


def record(told):
    """What is written down of a message, by way of JSON, as the database has it."""
    payload = json.loads(json.dumps(messages.payload(told, "acme", URL)))
    return Facts(subject=messages.subject(told), text=messages.text(told), payload=payload)


def several(kind, count, make=message, **fields):
    made = [make(kind, monitor_id=n, monitor_name=f"Shop {n}", **fields) for n in range(1, count + 1)]
    return [record(told) for told in made]


def test_says_that_many_are_down_in_one_message():
    subject, text = messages.grouped("opened", several("opened", 300), 420, "Acme")
    assert subject == "DOWN: 300 of 420 monitors in team Acme"
    lines = text.splitlines()
    assert lines[0] == "300 of 420 monitors in team Acme are down:"
    assert lines[1] == "• Shop 1: It answered 500 (since 12:00:05 UTC)"
    assert lines[20] == "• Shop 20: It answered 500 (since 12:00:05 UTC)"
    assert lines[21:] == ["… and 280 more"]


def test_says_that_many_are_up_again_in_one_message():
    up = several("resolved", 298, resolution="recovered", resolved_at=AT + timedelta(minutes=2))
    subject, text = messages.grouped("resolved", up, 420, "Acme")
    assert subject == "UP: 298 monitors in team Acme"
    assert text.splitlines()[:2] == [
        "298 monitors of team Acme are up again:",
        "• Shop 1: it answers again (after 2 min)",
    ]


GROUPS = [
    # messages, subject, first two lines
    (
        several("opened", 2), "DOWN: Shop 1, Shop 2",
        ["2 of 420 monitors in team Acme are down:", "• Shop 1: It answered 500 (since 12:00:05 UTC)"],
    ),
    (
        several("opened", 4, detail=""), "DOWN: 4 of 420 monitors in team Acme",
        ["4 of 420 monitors in team Acme are down:", "• Shop 1: status (since 12:00:05 UTC)"],
    ),
    (
        several("reminder", 2, at=AT + timedelta(minutes=35)), "STILL DOWN: Shop 1, Shop 2",
        ["2 of 420 monitors in team Acme are still down:", "• Shop 1: It answered 500 (for 35 min)"],
    ),
    (
        several("escalated", 2, at=AT + timedelta(hours=2)), "ESCALATED: Shop 1, Shop 2",
        [
            "2 of 420 monitors in team Acme are down, and nobody has acknowledged it:",
            "• Shop 1: It answered 500 (for 2 h)",
        ],
    ),
    (
        several("resolved", 2, resolution="paused", resolved_at=AT + timedelta(hours=2)),
        "RESOLVED: Shop 1, Shop 2",
        ["The incidents of 2 monitors of team Acme are resolved:", "• Shop 1: the monitor was paused (after 2 h)"],
    ),
    (
        several("acknowledged", 2, by="bob@example.com"), "ACKNOWLEDGED: Shop 1, Shop 2",
        [
            "Somebody is on it, for 2 monitors of team Acme:",
            "• Shop 1: acknowledged by bob@example.com, 2026-03-01 12:00:05 UTC.",
        ],
    ),
    (
        several("degraded", 2, of_a_monitor), "SLOW: Shop 1, Shop 2",
        ["2 of 420 monitors in team Acme are slow:", "• Shop 1: It took 2,300 ms"],
    ),
    (
        several("recovered", 2, of_a_monitor), "QUICK AGAIN: Shop 1, Shop 2",
        ["2 monitors of team Acme are quick again:", "• Shop 1"],
    ),
    (
        several("flapping", 2, of_a_monitor, detail=""), "FLAPPING: Shop 1, Shop 2",
        ["2 of 420 monitors in team Acme keep going down and coming back:", "• Shop 1"],
    ),
    (
        several("certificate_expiring", 2, of_a_monitor, detail="Until Monday."),
        "CERTIFICATE EXPIRING: Shop 1, Shop 2",
        ["The certificates of 2 monitors of team Acme expire soon:", "• Shop 1: Until Monday"],
    ),
    (
        [record(test_message("channel_failing", channel_name=f"Chat {n}", detail="Gone.")) for n in (1, 2)],
        "2 messages: CHANNEL FAILING: Chat 1 …",
        ["2 messages for team Acme:", "• The channel Chat 1 keeps failing: Gone."],
    ),
    (
        [record(test_message())] * 2, "2 messages: Test from healthmon …",
        [
            "2 messages for team Acme:",
            "• This is a test from healthmon. If you can read it, alerts will reach you here.",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("records", "subject", "lines"), GROUPS)
def test_words_groups_of_every_kind(records, subject, lines):
    kind = records[0].payload["type"].rpartition(".")[2]
    got = messages.grouped("channel_failing" if kind == "failing" else kind, records, 420, "Acme")
    assert (got[0], got[1].splitlines()[:2]) == (subject, lines)
    assert len(got[1].splitlines()) == 1 + len(records)


def test_leaves_a_message_alone_as_it_was_written():
    own = Facts(subject="Ours", text="In our words", payload=record(message()).payload)
    assert messages.grouped("opened", [own], 420, "Acme") == ("Ours", "In our words")


def test_counts_monitors_not_messages():
    twice = [record(message(incident_id=n)) for n in (1, 2)]
    subject, text = messages.grouped("opened", twice, 420, "Acme")
    assert subject == "DOWN: Shop"
    assert text.splitlines()[0] == "1 of 420 monitors in team Acme is down:"


def test_does_not_say_300_of_2():
    """Monitors were deleted or paused since."""
    _, text = messages.grouped("opened", several("opened", 4), 2, "Acme")
    assert text.splitlines()[0] == "4 monitors in team Acme are down:"


@given(
    names=st.lists(st.text(max_size=300), min_size=2, max_size=30),
    details=st.text(max_size=1000),
    team=st.text(max_size=100),
    kind=st.sampled_from(KINDS),
)
def test_keeps_a_group_short_whatever_things_are_called(names, details, team, kind):
    records = [
        record(message(kind, monitor_id=n, monitor_name=name, detail=details, channel_name=name))
        for n, name in enumerate(names)
    ]
    subject, text = messages.grouped(kind, records, 420, team)
    assert len(subject) <= 200
    assert len(subject.splitlines()) == 1
    assert len(text.splitlines()) <= 22
    assert len(text) <= 5_000


FORMATS = ["{0.__class__}", "{team.__init__}", "{is}", "%s %(team)s", "{{team}}", "${team}"]


@pytest.mark.parametrize("name", FORMATS)
def test_reads_no_name_as_a_format(name):
    records = [record(message(monitor_id=n, monitor_name=name, detail=name)) for n in (1, 2)]
    subject, text = messages.grouped("opened", records, 420, name)
    assert subject == f"DOWN: {name}, {name}"
    assert text.splitlines()[0] == f"2 of 420 monitors in team {name} are down:"
