"""Mail: what a real server gets, and what its refusals mean."""

import contextlib
import gc
import socket
import threading
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from structlog.testing import capture_logs

from notifications import messages
from notifications.messages import Message
from notifications.transports import TRANSPORTS, ConfigInvalid, DeliveryFailed, Envelope, email
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


LINKS = {"Acknowledge": "https://hm.example/acknowledge/x.y/", "Runbook": "https://wiki.example/shop"}


def part(got, kind="text/plain"):
    """One of the two forms of a mail's words."""
    [found] = [part for part in got.message.iter_parts() if part.get_content_type() == kind]
    return found.get_content()


def test_sends_the_words_to_everybody_named(server):
    send()
    [got] = server.mails
    assert got.recipients == ("bob@example.com", "ada@example.com")
    assert got.sender == "alerts@hm.example"
    assert got.message["subject"] == "DOWN: Café (status)"
    assert got.message["from"] == "Health <alerts@hm.example>"
    assert got.message["auto-submitted"] == "auto-generated"
    assert got.message.get_content_type() == "multipart/alternative"
    assert part(got).splitlines() == envelope().text.splitlines()
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
    send(subject=messages.subject(message), text=messages.text(message))
    [got] = server.mails
    assert got.recipients == ("bob@example.com", "ada@example.com")
    assert sorted(got.message.keys()) == sorted([
        "Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To",
    ])  # fmt: skip
    assert got.message.get_content_type() == "multipart/alternative"
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


# --- taken for some, refused for others ------------------------------------------------------------------------


class Script(dict):
    """Answers to RCPT that a MailSink gives: address → one after the other, then 250."""

    def get(self, address, default=None):
        answers = super().get(address)
        return answers.pop(0) if answers else default


SOME_REFUSED = [
    # answers to RCPT for Bob, who gets the mail, codes of the refusals that stay
    (["550 No such user"], [BOTH[1:]], [550]),
    (["452 Too many recipients"], [BOTH[1:], BOTH[:1]], None),
    (["450 Busy", "450 Busy"], [BOTH[1:]], [450]),
    (["450 Busy", "550 No such user"], [BOTH[1:]], [450]),
    (["450 Busy", "421 Closing"], [BOTH[1:]], [450]),
]


@pytest.mark.parametrize(("answers", "recipients", "codes"), SOME_REFUSED)
def test_sends_it_once_to_whom_it_is_taken_for_and_names_the_rest(server, answers, recipients, codes):
    server.rcpt = Script({BOTH[0]: list(answers)})
    with capture_logs() as logs:
        send()
    assert [got.recipients for got in server.mails] == recipients
    assert len({got.message["message-id"] for got in server.mails}) == 1
    said = [(line["refused"], line["of"], line["codes"]) for line in logs]
    assert said == ([(1, 2, codes)] if codes else [])
    assert not logs or logs[0]["webhook_id"] == envelope().key


class Watched(list):
    """A list that calls back when it grew."""

    def __init__(self, grew):
        super().__init__()
        self.grew = grew

    def append(self, item):
        super().append(item)
        self.grew()


def test_does_not_take_back_what_some_have_when_the_second_try_fails(server):
    """The server takes the mail for Ada, then falls over at the second transaction."""
    server.rcpt = Script({BOTH[0]: ["450 Busy"]})
    server.mails = Watched(lambda: setattr(server, "data", "554 Something broke"))
    with capture_logs() as logs:
        send()
    assert [got.recipients for got in server.mails] == [BOTH[1:]]
    assert logs[0]["codes"] == [450]


def test_has_sent_it_when_the_server_is_gone_before_the_goodbye(settings):
    with Gruff(b"220 hello\r\n", {b"QUIT": b""}) as gruff:
        configure(settings, **gruff.settings())
        send()
    with Gruff(b"220 hello\r\n", {b"QUIT": b"x" * 10_000 + b"\r\n"}) as gruff:
        configure(settings, **gruff.settings())
        send()


# --- what it looks like -----------------------------------------------------------------------------------------


def test_writes_links_out_in_the_text_and_makes_buttons_of_them(server):
    send(links=LINKS)
    [got] = server.mails
    assert part(got).splitlines()[-2:] == [f"{label}: {url}" for label, url in LINKS.items()]
    page = part(got, "text/html")
    assert [(a["href"], a.text) for a in elements(page, "a")] == [(url, name) for name, url in LINKS.items()]
    assert "Acknowledge: https" not in page


def test_has_no_buttons_without_links(server):
    send()
    assert elements(part(server.mails[0], "text/html"), "a") == []


NO_WEB = ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//evil.example", " https://x"]


@pytest.mark.parametrize("url", NO_WEB)
def test_makes_no_button_of_what_is_not_a_web_address(server, url):
    send(links=LINKS | {"Runbook": url})
    assert [a["href"] for a in elements(part(server.mails[0], "text/html"), "a")] == [LINKS["Acknowledge"]]


def test_loads_nothing_from_anywhere(server):
    send(links=LINKS)
    page = part(server.mails[0], "text/html")
    loading = ("img", "script", "link", "iframe", "object", "form", "video", "table")
    assert not any(elements(page, name) for name in loading)
    assert "url(" not in page
    assert "@import" not in page


EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ settings.SECRET_KEY }}{% debug %}"]


@pytest.mark.parametrize("evil", EVIL)
def test_shows_markup_as_it_was_written(server, evil):
    send(subject=f"DOWN: {evil}", text=evil, links={evil: f"https://x.example/{evil}"})
    page = part(server.mails[0], "text/html")
    assert not elements(page, "script") + elements(page, "img")
    assert [h.text for h in elements(page, "h1")] == [f"DOWN: {evil}"]
    assert [(a.text, a["href"]) for a in elements(page, "a")] == [(evil, f"https://x.example/{evil}")]


COLOURS = [
    # kind, severity, colour
    ("opened", "critical", email.RED),
    ("opened", "warning", email.AMBER),
    ("reminder", "info", email.BLUE),
    ("resolved", "critical", email.GREEN),
    ("recovered", "info", email.GREEN),
    ("acknowledged", "critical", email.BLUE),
    ("test", "critical", email.BLUE),
]


@pytest.mark.parametrize(("kind", "severity", "colour"), COLOURS)
def test_shows_by_a_colour_how_bad_it_is(server, kind, severity, colour):
    send(kind=kind, severity=severity)
    assert f"border-top:6px solid {colour}" in part(server.mails[0], "text/html")


@pytest.mark.parametrize("colour", [email.RED, email.AMBER, email.GREEN, email.BLUE])
def test_can_be_read_in_every_colour(colour):
    """White on it has a contrast of 4.5 and more: WCAG 2.2, 1.4.3."""
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert 1.05 / (luminance + 0.05) >= 4.5


class Element(dict):
    """An element of a page: its attributes, and the text that follows its beginning."""

    text = ""


def elements(page, name):
    found = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append((tag, Element(attributes)))

        def handle_data(self, data):
            if found and not found[-1][1].text:
                found[-1][1].text = data

    Finder().feed(page)
    return [element for tag, element in found if tag == name]


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
                if command == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    while next(lines) != b".\r\n":
                        pass
                connection.sendall(self.answers.get(command, b"250 fine\r\n"))
                if command == b"QUIT":
                    return
