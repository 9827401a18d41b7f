"""Webhooks: signed as Standard Webhooks says, judged by their answer, and configured with care."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook as SecondOpinion

from notifications import messages
from notifications.messages import Message
from notifications.transports import TRANSPORTS, ConfigInvalid, DeliveryFailed, Envelope
from tests.support import target
from tests.support.target import reply

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
webhook = TRANSPORTS["webhook"]


def envelope(**fields):
    given = {
        "key": "msg_0123456789abcdef",
        "kind": "opened",
        "subject": "DOWN: Shop (status)",
        "text": "Shop is down.",
        "payload": {"type": "incident.opened", "data": {"message": "Café is down ☠"}},
        "sent_at": datetime.now(UTC),  # at each call: the second opinion tolerates five minutes
    }
    return Envelope(**(given | fields))


def send(hook, **fields):
    webhook.send(envelope(**fields), {"url": hook.url("/hook"), "secret": SECRET})


# --- what an answer means -----------------------------------------------------------------------------------

AFTER = [("Retry-After", "30")]
JUDGEMENTS = [
    # answer, what it means, Retry-After handed on
    (reply(200), "taken", None),
    (reply(201, b""), "taken", None),
    (reply(202), "taken", None),
    (reply(204, b""), "taken", None),
    (reply(299), "taken", None),
    (target.huge_body, "taken", None),
    (target.half_body, "taken", None),
    (reply(103, b""), "retry", None),
    (reply(300), "retry", None),
    (target.redirect("/elsewhere", 302), "retry", None),
    (target.redirect("/elsewhere", 308), "retry", None),
    (reply(304, b""), "retry", None),
    (reply(400), "permanent", None),
    (reply(401), "permanent", None),
    (reply(404), "permanent", None),
    (reply(405), "permanent", None),
    (reply(413), "permanent", None),
    (reply(422, headers=AFTER), "permanent", None),
    (reply(408), "permanent", None),
    (reply(425), "permanent", None),
    (reply(410), "gone", None),
    (reply(429), "retry", None),
    (reply(429, headers=AFTER), "retry", 30),
    (reply(429, headers=[("Retry-After", "whenever")]), "retry", None),
    (reply(503), "retry", None),
    (reply(503, headers=AFTER), "retry", 30),
    (reply(500, headers=AFTER), "retry", None),
    (reply(501), "retry", None),
    (reply(502), "retry", None),
    (reply(599), "retry", None),
    (target.hang_up, "retry", None),
    (target.not_http, "retry", None),
]


@pytest.mark.parametrize(("answer", "meaning", "retry_after"), JUDGEMENTS)
def test_judges_the_answer(hook, answer, meaning, retry_after):
    hook.script(answer)
    try:
        send(hook)
    except DeliveryFailed as failure:
        got = "gone" if failure.gone else "permanent" if failure.permanent else "retry"
        assert failure.permanent == (got != "retry")
        assert (got, failure.retry_after) == (meaning, retry_after)
        assert SECRET not in str(failure)
    else:
        assert meaning == "taken"
    assert len(hook.received) == 1


def test_says_what_was_answered_on_one_line(hook):
    hook.script(reply(500, b"<h1>oops</h1>\r\n\x00\x1b[31m the database is away"))
    with pytest.raises(DeliveryFailed, match=r"^It answered 500: <h1>oops</h1> \[31m the database is away$"):
        send(hook)


def test_retries_what_may_not_be_dialled_because_names_change(hook, settings):
    settings.HEALTHMON_ALLOWED_NETS = ()
    with pytest.raises(DeliveryFailed, match="may not be dialled: 127.0.0.1 is loopback") as failure:
        send(hook)
    assert not failure.value.permanent
    assert hook.connections == 0


# --- what is sent ---------------------------------------------------------------------------------------------


def test_signs_so_that_anybody_elses_library_agrees(hook):
    send(hook)
    [got] = hook.received
    assert SecondOpinion(SECRET).verify(got.body, dict(got.headers)) == envelope().payload
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"] == "healthmon"


@pytest.mark.parametrize("size", [24, 25, 26, 32, 64])
def test_signs_with_secrets_of_any_permitted_length(hook, size):
    secret = "whsec_" + base64.b64encode(b"\xff" * size).decode()
    webhook.send(envelope(), {"url": hook.url(), "secret": secret})
    [got] = hook.received
    assert SecondOpinion(secret).verify(got.body, dict(got.headers))


def test_sends_the_same_id_and_body_but_the_time_of_the_attempt(hook):
    send(hook)
    send(hook, sent_at=datetime.now(UTC) + timedelta(seconds=60))
    first, second = hook.received
    assert first.id == second.id == "msg_0123456789abcdef"
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
INCIDENT = {
    "team_id": 1,
    "incident_id": 7,
    "reason": "status",
    "detail": "It answered 500.",
    "opened_at": AT,
    "monitor_id": 3,
    "monitor_name": "Shop",
    "monitor_url": "https://shop.example/health",
}
URL = "https://hm.example/incident/7"
BODIES = [
    # message, type, timestamp, incident's status, reason and resolved_at
    (Message(kind="opened", at=AT, incident_status="open", **INCIDENT),
     "incident.opened", "2026-03-01T12:00:00Z", ("open", "status", None)),
    (Message(kind="acknowledged", at=AT + timedelta(seconds=90), incident_status="acknowledged", **INCIDENT),
     "incident.acknowledged", "2026-03-01T12:01:30Z", ("acknowledged", "status", None)),
    (Message(kind="resolved", at=AT + timedelta(hours=1), incident_status="resolved", resolution="recovered",
             resolved_at=AT + timedelta(hours=1), **INCIDENT),
     "incident.resolved", "2026-03-01T13:00:00Z", ("resolved", "status", "2026-03-01T13:00:00Z")),
]  # fmt: skip


@pytest.mark.parametrize(("message", "kind", "timestamp", "incident"), BODIES)
def test_sends_the_body_that_is_documented(hook, message, kind, timestamp, incident):
    send(hook, payload=messages.payload(message, "acme", URL))
    status, reason, resolved_at = incident
    assert hook.received[0].json == {
        "type": kind,
        "timestamp": timestamp,
        "data": {
            "severity": "critical",
            "incident": {
                "id": 7,
                "status": status,
                "reason": reason,
                "opened_at": "2026-03-01T12:00:00Z",
                "resolved_at": resolved_at,
                "resolution": message.resolution,
                "url": URL,
            },
            "monitor": {"id": 3, "name": "Shop", "url": "https://shop.example/health", "runbook_url": ""},
            "team": {"slug": "acme"},
            "detail": "It answered 500.",
            "message": f"{messages.text(message)}\nIncident: {URL}",
        },
    }


def test_sends_a_test_in_the_same_shape():
    assert messages.payload(Message(kind="test", team_id=1, at=AT), "acme", "") == {
        "type": "test",
        "timestamp": "2026-03-01T12:00:00Z",
        "data": {
            "severity": "critical",
            "incident": None,
            "monitor": None,
            "team": {"slug": "acme"},
            "detail": "",
            "message": "This is a test from healthmon. If you can read it, alerts will reach you here.",
        },
    }


def test_keeps_the_largest_body_below_what_receivers_take(hook):
    longest = INCIDENT | {
        "monitor_name": "☠" * 200, "monitor_url": "u" * 2048, "detail": "☠" * 300, "runbook_url": "r" * 2048
    }  # fmt: skip
    message = Message(kind="opened", at=AT, **longest)
    send(hook, payload=messages.payload(message, "s" * 50, URL))
    assert len(hook.received[0].body) < 20_000


# --- configuration --------------------------------------------------------------------------------------------


def whsec(size):
    return "whsec_" + base64.b64encode(b"k" * size).decode()


INVALID = [
    # config, field it is about, a part of the sentence
    ({}, "url", "needed"),
    ({"url": ""}, "url", "needed"),
    ({"url": None}, "url", "needed"),
    ({"url": 5}, "url", "needed"),
    ({"url": ["http://a"]}, "url", "needed"),
    ({"url": "ftp://example.com/"}, "url", "must start with http"),
    ({"url": "//example.com/"}, "url", "must start with http"),
    ({"url": "http://user:pass@example.com/"}, "url", "user name or password"),
    ({"url": "http://example.com:0/"}, "url", "port"),
    ({"url": "http://example.com:99999/"}, "url", "port"),
    ({"url": "http://example.com/\nx"}, "url", "control character"),
    ({"url": "http://example.com/\ud800"}, "url", "control character"),
    ({"url": "http://example.com/" + "x" * 2048}, "url", "longer than"),
    ({"url": "http://10.0.0.1/"}, "url", "10.0.0.1 is private"),
    ({"url": "http://169.254.169.254/latest"}, "url", "metadata"),
    ({"url": "http://a.example/", "secret": "hunter2"}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": base64.b64encode(b"k" * 32).decode()}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": whsec(23)}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": whsec(65)}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": "whsec_ünglücklich"}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": whsec(32) + "\n"}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": whsec(25).rstrip("=")}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": 17}, "secret", "whsec_"),
    ({"url": "http://a.example/", "secret": ["whsec_"]}, "secret", "whsec_"),
    ({"url": "http://a.example/", "method": "GET", "to": 1}, "method", "no such setting"),
]


@pytest.mark.parametrize(("config", "field", "part"), INVALID)
def test_refuses_a_configuration_that_cannot_work(config, field, part):
    with pytest.raises(ConfigInvalid) as invalid:
        webhook.validate(config)
    assert part in invalid.value.errors[field]


def test_names_every_unknown_setting():
    with pytest.raises(ConfigInvalid) as invalid:
        webhook.validate({"url": "http://a.example/", "method": "GET", "to": 1})
    assert set(invalid.value.errors) == {"method", "to"}


@pytest.mark.parametrize("size", [24, 32, 64])
def test_keeps_a_secret_that_was_given(size):
    config = {"url": "https://a.example/hook", "secret": whsec(size)}
    assert webhook.validate(config) == config


@pytest.mark.parametrize("config", [{}, {"secret": ""}, {"secret": None}])
def test_makes_a_secret_of_its_own_otherwise(config):
    made = [webhook.validate({"url": "https://a.example/"} | config)["secret"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in made)
