"""What the journeys share: one running installation, and for each a target, a webhook and a mailbox of its own.

Their limits are for a busy machine; none of them is a measurement.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from tests.support.sinks import Mail, MailSink, WebhookSink
from tests.support.stack import Stack
from tests.support.target import TargetServer

SOON = 60  # seconds: an alert, a status
LATER = 120  # seconds: the same, when a part has to be started again first


def moment(iso: str) -> float:
    """A time of the API, in epoch seconds."""
    return datetime.fromisoformat(iso).timestamp()


@dataclass(frozen=True)
class Watched:
    """A monitor, as its owner sees it over the API."""

    stack: Stack
    id: int

    def status(self) -> str:
        return str(self.stack.api("GET", f"monitors/{self.id}/")["status"])

    def incidents(self) -> list[dict[str, Any]]:
        return list(self.stack.api("GET", f"incidents/?monitor={self.id}")["results"])

    def results(self) -> list[dict[str, Any]]:
        """The newest first, 200 at most."""
        return list(self.stack.api("GET", f"monitors/{self.id}/results/?limit=200")["results"])

    def wait_for(self, status: str, seconds: float = SOON) -> None:
        self.stack.wait_until(lambda: self.status() == status, seconds, f"the monitor to be {status}")

    def wait_for_incident(self, seconds: float = SOON) -> dict[str, Any]:
        return self.stack.wait_until(self.incidents, seconds, "the incident")[0]


@dataclass(frozen=True)
class Hook:
    """A channel to a webhook that hears of everything."""

    stack: Stack
    sink: WebhookSink
    channel: int
    secret: str

    def types(self) -> list[str]:
        """The kinds of alert that came, in order."""
        return [got.json["type"] for got in self.sink.received]

    def wait_for(self, *types: str, seconds: float = SOON) -> None:
        """Wait until as many alerts came; they have to be these."""
        self.sink.wait_for(len(types), seconds)
        assert self.types() == list(types)

    def deliveries(self) -> list[dict[str, Any]]:
        return list(self.stack.api("GET", f"deliveries/?channel={self.channel}&limit=200")["results"])


@dataclass(frozen=True)
class Inbox:
    """A channel to a mail address that hears of everything."""

    sink: MailSink
    address: str

    def mails(self) -> list[Mail]:
        return [mail for mail in self.sink.mails if mail.recipients == (self.address,)]

    def subjects(self) -> list[str]:
        return [mail.message["subject"] for mail in self.mails()]


@pytest.fixture(scope="session")
def mail_server():
    with MailSink() as sink:
        yield sink


@pytest.fixture(scope="session")
def stack(mail_server):
    with Stack(EMAIL_URL=mail_server.url()) as running:
        yield running


@pytest.fixture
def target():
    with TargetServer() as server:
        yield server


def subscribed(stack: Stack, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    channel = stack.api("POST", "channels/", {"name": f"a {kind}", "kind": kind, "config": config})
    stack.api("POST", "subscriptions/", {"channel": channel["id"], "scope": "all"})
    return channel


@pytest.fixture
def hook(stack):
    with WebhookSink() as sink:
        channel = subscribed(stack, "webhook", {"url": sink.url("/hook")})
        yield Hook(stack, sink, channel["id"], channel["config"]["secret"])
        stack.api("DELETE", f"channels/{channel['id']}/")


@pytest.fixture
def inbox(stack, mail_server, request):
    address = f"{request.node.name[:60]}@example.com"
    channel = subscribed(stack, "email", {"to": [address]})
    yield Inbox(mail_server, address)
    stack.api("DELETE", f"channels/{channel['id']}/")


@pytest.fixture
def watch(stack):
    """Make a monitor: every 5 s, 3 s of patience, and a second look after one, unless told otherwise."""
    made: list[Watched] = []

    def watch(url: str, **fields: Any) -> Watched:
        columns = {
            "name": "Shop",
            "url": url,
            "interval_seconds": 5,
            "timeout_seconds": 3,
            "recheck_seconds": 1,
        }
        made.append(Watched(stack, stack.api("POST", "monitors/", columns | fields)["id"]))
        return made[-1]

    yield watch
    for monitor in made:
        stack.api("DELETE", f"monitors/{monitor.id}/")


@pytest.fixture
def monitor(watch, target, hook):
    """A monitor of `target` that was found up; `hook` hears of it."""
    monitor = watch(target.url())
    monitor.wait_for("up")
    return monitor
