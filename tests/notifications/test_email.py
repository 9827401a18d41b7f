"""Mail: what a real server gets, and what its refusals mean."""

import contextlib
import gc
import socket
import threading
from datetime import UTC, datetime, timedelta

import pytest

from notifications import messages
from notifications.messages import Message
from notifications.transports import TRANSPORTS, ConfigInvalid, DeliveryFailed, Envelope
from notifications.transports.email import Email
from tests.support.sinks import MailSink, smtp_settings

NOW = datetime.now(UTC)
mail = TRANSPORTS["email"]


@pytest.fixture
def server(settings):
    with MailSink() as sink:
        configure(settings, **sink.settings())
        yield sink


def configure(settings, **values):
    for name, value in ({"DEFAULT_FROM_EMAIL": "Health <alerts@hm.example>"} | values).items():
        setattr(settings, name, value)


def envelope(**fields):
    given = {
        "key": "msg_0123456789abcdef",
        "kind": "opened",
        "subject": "DOWN: Café (status)",
        "text": "Café is down since noon.\n\nWatched: https://shop.example/" + "x" * 2000,
        "payload": {},
        "sent_at": NOW,
    }
    return Envelope(**(given | fields))


def send(transport=mail, to=("bob@example.com", "ada@example.com"), **fields):
    transport.send(envelope(**fields), {"to": list(to)})


def test_sends_the_words_to_everybody_named(server):
    send()
    [got] = server.mails
    assert got.recipients == ("bob@example.com", "ada@example.com")
    assert got.sender == "alerts@hm.example"
    assert got.message["subject"] == "DOWN: Café (status)"
    assert got.message["from"] == "Health <alerts@hm.example>"
    assert got.message["auto-submitted"] == "auto-generated"
    assert got.message.get_content().splitlines() == envelope().text.splitlines()
    assert max(map(len, got.raw.splitlines())) <= 998


def test_keeps_the_message_id_on_every_attempt(server):
    server.data = "451 Try again later"
    with pytest.raises(DeliveryFailed):
        send()
    server.data = ""
    send()
    send(sent_at=NOW + timedelta(hours=1))
    assert {got.message["message-id"] for got in server.mails} == {"<msg_0123456789abcdef@hm.example>"}


SENDERS = [
    # DEFAULT_FROM_EMAIL, the domain of the Message-ID
    ("healthmon@localhost", "localhost"),
    ("Health Monitor <alerts@mail.example>", "mail.example"),
]


@pytest.mark.parametrize(("sender", "domain"), SENDERS)
def test_makes_a_message_id_of_the_senders_domain(server, settings, sender, domain):
    settings.DEFAULT_FROM_EMAIL = sender
    send()
    assert server.mails[0].message["message-id"] == f"<msg_0123456789abcdef@{domain}>"


EVIL_NAMES = [
    "Shop\r\nBcc: eve@example.com",
    "Shop\nContent-Type: text/html\n\n<script>",
    "Shop\rX-Evil: 1",
    "Shop\x0bX-Evil: 1\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    "=?utf-8?q?Shop=0D=0ABcc:_eve@example.com?=",
    "Shop\r\n.\r\nMAIL FROM:<eve@example.com>",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_lets_no_monitors_name_become_a_header_or_a_command(server, name):
    message = Message(
        kind="opened", team_id=1, at=NOW, opened_at=NOW, monitor_name=name, incident_id=1, reason="status"
    )
    send(subject=messages.subject(message), text=messages.text(message, ""))
    [got] = server.mails
    assert got.recipients == ("bob@example.com", "ada@example.com")
    assert sorted(got.message.keys()) == sorted([
        "Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "MIME-Version", "Message-ID",
        "Subject", "To",
    ])  # fmt: skip
    assert got.message.get_content_type() == "text/plain"
    assert name.split()[0] in got.message["subject"] or name.startswith("=?")


BOTH = ("bob@example.com", "ada@example.com")
REFUSALS = [
    # answer to RCPT by address, answer to DATA, permanent, a part of the sentence
    ({"*": "450 Mailbox busy"}, "", False, "refused the recipients (450)"),
    ({"*": "550 No such user"}, "", True, "refused the recipients (550)"),
    ({BOTH[0]: "550 No", BOTH[1]: "451 Later"}, "", False, "refused the recipients (451, 550)"),
    ({"*": "421 Closing"}, "", False, "421"),
    ({}, "451 Try again later", False, "answered 451"),
    ({}, "452 Full", False, "answered 452"),
    ({}, "552 Too big", True, "answered 552"),
    ({}, "554 Spam", True, "answered 554"),
]


@pytest.mark.parametrize(("rcpt", "data", "permanent", "part"), REFUSALS)
def test_judges_a_refusal(server, rcpt, data, permanent, part):
    server.rcpt, server.data = rcpt, data
    with pytest.raises(DeliveryFailed) as failure:
        send()
    assert part in str(failure.value)
    assert failure.value.permanent == permanent
    assert not failure.value.gone
    assert server.mails == []


OPERATORS = [
    # what the server says when it is connected to, then to each command: all of it the operator can mend
    (b"554 No service here\r\n", {}),
    (b"421 Too busy\r\n", {}),
    (b"220 hello\r\n", {b"MAIL": b"530 Authentication required\r\n"}),
    (b"220 hello\r\n", {b"MAIL": b"550 Your sender is not welcome\r\n"}),
    (b"220 hello\r\n", {b"EHLO": b"250-hello\r\n250 AUTH PLAIN\r\n", b"AUTH": b"535 Wrong password\r\n"}),
    (b"220 hello\r\n", {b"EHLO": b"250 hello\r\n"}),  # a user is configured, and it knows no AUTH
    (b"this is no mail server\r\n", {}),
    (b"", {}),
]


@pytest.mark.parametrize(("greeting", "answers"), OPERATORS)
def test_retries_what_the_operator_can_mend(settings, greeting, answers):
    with Gruff(greeting, answers) as gruff:
        configure(settings, **gruff.settings())
        if b"MAIL" not in answers:
            configure(settings, EMAIL_HOST_USER="alerts", EMAIL_HOST_PASSWORD="hunter2")
        with pytest.raises(DeliveryFailed) as failure:
            send()
    assert not failure.value.permanent
    assert "hunter2" not in str(failure.value)
    gc.collect()  # a connection that was left open would be a failure here


def test_retries_when_no_server_listens(settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    configure(settings, **smtp_settings(port))
    with pytest.raises(DeliveryFailed, match=r"could not be used \(ConnectionRefusedError\)") as failure:
        send()
    assert not failure.value.permanent


def test_retries_while_no_server_is_known(settings):
    settings.EMAIL_CONFIGURED = False
    with pytest.raises(DeliveryFailed, match="set EMAIL_URL") as failure:
        send()
    assert not failure.value.permanent


def test_hangs_up_on_a_server_that_takes_its_time_at_every_step(server):
    """Each step is quick enough for EMAIL_TIMEOUT; all of them together would outlive the lease."""
    server.delay = 0.3
    with pytest.raises(DeliveryFailed, match="could not be used") as failure:
        send(Email(timeout=0.5), to=[f"user{n}@example.com" for n in range(50)])
    assert not failure.value.permanent
    assert server.mails == []


def test_says_nothing_of_one_refused_among_others(server):
    """Django hands on no refusal while anybody was accepted; a known gap, so that its mending is noticed."""
    server.rcpt = {BOTH[0]: "550 No such user"}
    send()
    assert server.mails[0].recipients == (BOTH[1],)


# --- configuration --------------------------------------------------------------------------------------------

INVALID = [
    # config, field it is about
    ({}, "to"),
    ({"to": []}, "to"),
    ({"to": None}, "to"),
    ({"to": "bob@example.com"}, "to"),
    ({"to": {"bob@example.com": 1}}, "to"),
    ({"to": ["bob"]}, "to"),
    ({"to": [""]}, "to"),
    ({"to": [None]}, "to"),
    ({"to": [5]}, "to"),
    ({"to": [["bob@example.com"]]}, "to"),
    ({"to": [{"@": 1}]}, "to"),
    ({"to": ["Bob <bob@example.com>"]}, "to"),
    ({"to": ["bob@example.com\nBcc: eve@example.com"]}, "to"),
    ({"to": ["bob@example.com, eve@example.com"]}, "to"),
    ({"to": ["bob@example.com\x00"]}, "to"),
    ({"to": ["b\ud800@example.com"]}, "to"),
    ({"to": ["bob@exa\ud800mple.com"]}, "to"),
    ({"to": [f"user{n}@example.com" for n in range(51)]}, "to"),
    ({"to": ["bob@example.com"], "cc": []}, "cc"),
]


@pytest.mark.parametrize(("config", "field"), INVALID)
def test_refuses_a_configuration_that_cannot_work(config, field):
    with pytest.raises(ConfigInvalid) as invalid:
        mail.validate(config)
    assert set(invalid.value.errors) == {field}


def test_drops_doubles_and_keeps_the_order():
    assert mail.validate({"to": ["b@x.example", "a@x.example", "b@x.example"]}) == {
        "to": ["b@x.example", "a@x.example"]
    }


def test_takes_names_of_any_script(server):
    config = mail.validate({"to": ["bob@bücher.example"]})
    mail.send(envelope(), config)
    assert server.mails[0].recipients == ("bob@xn--bcher-kva.example",)


class Gruff(contextlib.ExitStack):
    """A mail server that says a line when connected to, and to each command what a table has for it, else 250."""

    def __init__(self, greeting, answers):
        super().__init__()
        self.greeting, self.answers = greeting, answers

    def __enter__(self):
        self.listener = self.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        self.callback(self.thread.join, 10)
        return self

    def settings(self):
        return smtp_settings(self.listener.getsockname()[1])

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            connection.sendall(self.greeting)
            if not self.greeting.startswith(b"2"):
                return
            for line in lines:
                command = line.split()[0].upper()
                connection.sendall(self.answers.get(command, b"250 fine\r\n"))
                if command == b"QUIT":
                    return
