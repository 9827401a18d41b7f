"""How alerts are worded."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications import messages
from notifications.messages import KINDS, Message

AT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
URL = "https://hm.example/admin/incidents/incident/7/change/"


def message(kind="opened", **fields):
    given = {
        "team_id": 1, "at": AT, "incident_id": 7, "incident_status": "open", "reason": "status",
        "detail": "It answered 500.", "opened_at": AT, "monitor_id": 3, "monitor_name": "Shop",
        "monitor_url": "https://shop.example/health", "runbook_url": "https://wiki.example/shop",
    }  # fmt: skip
    return Message(kind=kind, **(given | fields))


SUBJECTS = [
    # message, its subject
    (message(), "DOWN: Shop (status)"),
    (message("resolved", resolution="recovered"), "UP: Shop"),
    (message("resolved", resolution="by_person"), "RESOLVED: Shop"),
    (message("resolved", resolution="paused"), "RESOLVED: Shop"),
    (message("resolved", resolution="deleted"), "RESOLVED: Shop"),
    (message("acknowledged"), "ACKNOWLEDGED: Shop"),
    (message("test"), "Test from healthmon"),
    (message("certificate_expiring"), "CERTIFICATE EXPIRING: Shop"),
    (message(monitor_name="  Shop \r\n\t of\u2028Bob "), "DOWN: Shop of Bob (status)"),
    (message(monitor_name="Ünïcode ☠"), "DOWN: Ünïcode ☠ (status)"),
]


@pytest.mark.parametrize(("message", "subject"), SUBJECTS)
def test_says_in_the_subject_what_is_up(message, subject):
    assert messages.subject(message) == subject


@given(name=st.text(max_size=300), kind=st.sampled_from(KINDS))
def test_keeps_a_subject_on_one_line_of_at_most_200_characters(name, kind):
    subject = messages.subject(message(kind, monitor_name=name))
    assert len(subject) <= 200
    assert len(subject.splitlines()) == 1
    assert subject == subject.strip()


TEXTS = [
    # message, its text
    (message(), """\
Shop is down since 2026-03-01 12:00:05 UTC.
It answered 500.

Watched: https://shop.example/health
Runbook: https://wiki.example/shop
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message(detail="", runbook_url=""), """\
Shop is down since 2026-03-01 12:00:05 UTC.
Reason: status.

Watched: https://shop.example/health
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("resolved", resolution="recovered", resolved_at=AT + timedelta(minutes=2, seconds=3)), """\
Shop: it answers again, 2026-03-01 12:02:08 UTC.
It was down for 2 min 3 s.

Watched: https://shop.example/health
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("resolved", resolution="by_person", by="bob@example.com", resolved_at=AT + timedelta(days=1)), """\
Shop: resolved by hand by bob@example.com, 2026-03-02 12:00:05 UTC.
It was down for 1 d.

Watched: https://shop.example/health
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("resolved", resolution="paused", by="ada@example.com", resolved_at=AT), """\
Shop: the monitor was paused by ada@example.com, 2026-03-01 12:00:05 UTC.
It was down for less than a second.

Watched: https://shop.example/health
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("resolved", resolution="deleted", resolved_at=AT + timedelta(hours=49, seconds=59)), """\
Shop: the monitor was deleted, 2026-03-03 13:01:04 UTC.
It was down for 2 d 1 h.

Watched: https://shop.example/health
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("acknowledged", by="bob@example.com", at=AT + timedelta(seconds=30)), """\
Shop: acknowledged by bob@example.com, 2026-03-01 12:00:35 UTC.

Watched: https://shop.example/health
Runbook: https://wiki.example/shop
Incident: https://hm.example/admin/incidents/incident/7/change/"""),
    (message("test"), "This is a test from healthmon. If you can read it, alerts will reach you here."),
]  # fmt: skip


@pytest.mark.parametrize(("message", "text"), TEXTS)
def test_says_what_failed_since_when_and_where_to_go(message, text):
    assert messages.text(message, URL) == text


@pytest.mark.parametrize("kind", KINDS)
def test_has_words_for_every_kind(kind):
    assert messages.subject(message(kind))
    assert messages.text(message(kind, detail="Something."), URL)
    assert messages.payload(message(kind), "acme", URL)["type"] in {kind, f"incident.{kind}"}


def test_leaves_out_the_incident_when_there_is_no_link():
    assert "Incident:" not in messages.text(message(), "")


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
    assert f"It was down for {words}." in messages.text(resolved, URL)
