"""What every transport keeps to. One that is missing from the table fails here."""

import base64
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from notifications.transports import TRANSPORTS, ConfigInvalid, DeliveryFailed, Transport
from notifications.transports.base import redacted
from notifications.transports.http import Post
from notifications.transports.ntfy import Ntfy
from notifications.transports.opsgenie import Opsgenie
from notifications.transports.pagerduty import PagerDuty
from notifications.transports.pushover import Pushover
from notifications.transports.telegram import Telegram
from notifications.transports.twilio import Twilio
from tests.support import target
from tests.support.sending import became, complaint, envelope
from tests.support.sinks import MailSink, WebhookSink
from tests.support.target import Seen, Wire, reply

Config = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """config: a whole one, every field given, as its owner would. at: the transport and the configuration that send
    to a server of ours at http://127.0.0.1:port."""

    config: Config
    at: Callable[[int], tuple[Transport, Config]]


def by_url(kind: str, url: str, **more: Any) -> Sample:
    """The place is where the URL says."""
    path = url[url.index("/", url.index("://") + 3) :]

    def at(port: int) -> tuple[Transport, Config]:
        scheme = "json" if url.startswith("json") else "http"
        return TRANSPORTS[kind], {"url": f"{scheme}://127.0.0.1:{port}{path}"} | more

    return Sample({"url": url} | more, at)


def by_origin(transport: Callable[[str], Transport], **config: Any) -> Sample:
    """The place is the provider's."""
    return Sample(config, lambda port: (transport(f"http://127.0.0.1:{port}"), config))


NTFY: Config = {"topic": "ops", "token": "tk_0123456789abcdefghijklmnopqrs"}

SAMPLES = {
    "webhook": by_url(
        "webhook",
        "https://example.com/hook",
        secret="whsec_" + base64.b64encode(bytes(range(100, 132))).decode(),
    ),
    "email": Sample({"to": ["ada@example.com"]}, lambda port: (TRANSPORTS["email"], {"to": ["ada@example.com"]})),
    "slack": by_url("slack", "https://hooks.slack.com/services/T0123456789/B0123456789/abcdefghijklmnopqrstuvwx"),
    "discord": by_url("discord", "https://discord.com/api/webhooks/123456789012345678/" + "aB3_" * 17),
    "teams": by_url(
        "teams",
        "https://prod-01.westeurope.logic.azure.com:443/workflows/0123456789abcdef0123456789abcdef/triggers/manual"
        "/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=aB3-dE6_gH9aB3-dE6_gH9aB3",
    ),
    "mattermost": by_url("mattermost", "https://chat.example.com/hooks/x7k3c9m1p5q8r2s4t6u0v1w3y5"),
    "telegram": by_origin(
        Telegram, token="110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", chat_id=-1001234567890, thread_id=5
    ),
    "ntfy": Sample(
        {"server": "https://ntfy.example.com"} | NTFY,
        lambda port: (Ntfy(), {"server": f"http://127.0.0.1:{port}"} | NTFY),
    ),
    "pagerduty": by_origin(PagerDuty, routing_key="R0123456789abcdefghijklmnopqrstu", region="eu"),
    "opsgenie": by_origin(Opsgenie, api_key="0f1e2d3c-aaaa-bbbb-cccc-0123456789ab", region="eu"),
    "pushover": by_origin(
        Pushover, token="azGDORePK8gMaC0QOYAMyEEuzJnyUi", user="uQiRzpo4DXghDmr9QzzfQu27cmVRsG", device="phone"
    ),
    "twilio": by_origin(
        Twilio,
        account_sid="AC" + "0123456789abcdef" * 2,
        auth_token="fedcba9876543210" * 2,
        **{"from": "+15005550006", "to": "+4915112345678"},
    ),
    "apprise": by_url("apprise", "jsons://example.com/tk-0f1e2d3c4b5a69788796"),
}  # fmt: skip

KINDS = list(TRANSPORTS)


def sample(kind: str) -> Sample:
    assert kind in SAMPLES, f"{kind} is to get a line in SAMPLES"
    return SAMPLES[kind]


def secrets(kind: str, config: Mapping[str, Any] | None = None) -> set[str]:
    """The secrets of a configuration; of URLs also what says most: their longer pieces."""
    given = config or sample(kind).config
    whole = {given[name] for name in TRANSPORTS[kind].secret_fields}
    return whole | {piece for text in whole if "://" in text for piece in text.split("/") if len(piece) > 20}


# --- configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_says_in_a_sentence_what_each_setting_is(kind):
    names = [setting.name for setting in TRANSPORTS[kind].settings]
    assert names and len(set(names)) == len(names)
    assert all(
        setting.help.endswith((".", "…")) and len(setting.help) > 10 for setting in TRANSPORTS[kind].settings
    )


@pytest.mark.parametrize("kind", KINDS)
def test_has_a_sample_of_every_setting_and_takes_it(kind):
    config = sample(kind).config
    assert set(config) == {setting.name for setting in TRANSPORTS[kind].settings}
    assert TRANSPORTS[kind].validate(config) == config


@pytest.mark.parametrize("kind", KINDS)
def test_takes_again_what_it_made_of_a_configuration(kind):
    needed = {setting.name for setting in TRANSPORTS[kind].settings if setting.needed}
    clean = TRANSPORTS[kind].validate({name: sample(kind).config[name] for name in needed})
    assert TRANSPORTS[kind].validate(clean) == clean


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_unknown_settings_by_name(kind):
    assert complaint(TRANSPORTS[kind], sample(kind).config | {"nonsense": 1, "": 2}) == {
        "nonsense": "There is no such setting.",
        "": "There is no such setting.",
    }


SETTINGS = [(kind, setting) for kind in KINDS for setting in TRANSPORTS[kind].settings]


@pytest.mark.parametrize(
    ("kind", "setting"), SETTINGS, ids=[f"{kind}-{setting.name}" for kind, setting in SETTINGS]
)
@pytest.mark.parametrize("nothing", ["left out", None, ""])
def test_names_a_setting_that_is_needed(kind, setting, nothing):
    given = sample(kind).config | {setting.name: nothing}
    if nothing == "left out":
        del given[setting.name]
    assert set(complaint(TRANSPORTS[kind], given)) == ({setting.name} if setting.needed else set())


NONSENSE = [0, True, 1.5, [], {}, [5], {"a": 1}, "\x00", "\ud800", "☠", " ", "a\nb", "x" * 100_000]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: repr(value)[:20])
def test_refuses_nonsense_with_a_sentence_and_never_with_a_crash(kind, nonsense):
    for name in sample(kind).config:
        problem = complaint(TRANSPORTS[kind], sample(kind).config | {name: nonsense})
        assert set(problem) == {name}
        assert problem[name].endswith((".", "…")) and len(problem[name]) < 300


SPOILS: list[Callable[[str], str]] = [
    lambda text: text + " ",
    lambda text: text + "\n",
    lambda text: text + "☠",
    lambda text: text[:-1] + "\\",
    lambda text: "x" + text,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", SPOILS)
def test_does_not_show_a_secret_that_it_refuses(kind, spoil):
    for name in TRANSPORTS[kind].secret_fields:
        secret = sample(kind).config[name]
        try:
            TRANSPORTS[kind].validate(sample(kind).config | {name: spoil(secret)})
        except ConfigInvalid as invalid:
            for piece in secrets(kind):
                assert piece[4:-4] not in f"{invalid} {invalid!r} {invalid.errors}"


@pytest.mark.parametrize("kind", KINDS)
def test_shows_no_secret_of_itself(kind):
    transport, config = sample(kind).at(9)
    made = [repr(transport), repr(vars(transport)), transport.destination(config)]
    if hasattr(transport, "post"):
        post = transport.post(envelope(), config)
        assert isinstance(post, Post)
        made += [repr(post), str(post)]
    assert not [piece for piece in secrets(kind, config) if piece in " ".join(made)]


@pytest.mark.parametrize("kind", KINDS)
def test_knows_its_place_and_its_pace(kind):
    transport = TRANSPORTS[kind]
    assert transport.destination(sample(kind).config).strip()
    assert isinstance(transport.for_machines, bool)
    assert transport.rate_per_minute is None or transport.rate_per_minute > 0


# --- sending --------------------------------------------------------------------------------------------------


@pytest.fixture
def place(hook: WebhookSink) -> WebhookSink:
    """A server that all kinds can be pointed at; e-mail has one of its own."""
    hook.otherwise = reply(200)
    return hook


@pytest.fixture
def mail(settings: Any):
    with MailSink() as sink:
        for name, value in sink.settings().items():
            setattr(settings, name, value)
        yield sink


HTTP = [kind for kind in KINDS if kind != "email"]


@pytest.mark.parametrize("kind", HTTP)
def test_sends_once_and_within_the_guard(place, settings, kind):
    transport, config = sample(kind).at(place.port)
    assert became(transport, config) == ("sent", "")
    assert len(place.received) == 1
    settings.HEALTHMON_ALLOWED_NETS = ()
    word, said = became(transport, config)
    assert (word, place.connections) == ("retry", 1), "a name may lead elsewhere tomorrow"
    assert "may not be dialled: 127.0.0.1 is loopback" in said


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_tries_again_when_the_other_side_is_ill(place, kind, status):
    place.otherwise = reply(status, b"oops")
    assert became(*sample(kind).at(place.port))[0] == "retry"


@pytest.mark.parametrize("kind", HTTP)
def test_waits_as_long_as_it_is_asked_to(place, kind):
    place.otherwise = reply(429, b"slower", [("Retry-After", "30")])
    assert became(*sample(kind).at(place.port))[0] == "throttled(30)"


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize("answer", [target.redirect("/elsewhere"), target.hang_up, target.not_http])
def test_tries_again_when_it_was_not_understood(place, kind, answer):
    place.otherwise = answer
    assert became(*sample(kind).at(place.port))[0] == "retry"


@pytest.mark.parametrize("kind", KINDS)
def test_tries_again_when_nobody_listens(settings, kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for name, value in {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port, "EMAIL_CONFIGURED": True}.items():
        setattr(settings, name, value)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    assert became(*sample(kind).at(port))[0] == "retry"


def test_tries_again_when_the_mail_server_is_ill(mail):
    mail.data = "451 Try again later"
    assert became(*sample("email").at(0))[0] == "retry"


def parrot(wire: Wire, seen: Seen) -> None:
    """Say what was asked for, with all that came along, as careless gateways do."""
    headers = "".join(f" {name}={value}" for name, value in seen.headers.items())
    body = f"no route to {seen.path}{headers} ".encode() + seen.body
    reply(400, body)(wire, seen)


def parrot_the_path(wire: Wire, seen: Seen) -> None:
    reply(404, f"no route to {seen.path}".encode())(wire, seen)


def parrot_the_body(wire: Wire, seen: Seen) -> None:
    reply(502, seen.body)(wire, seen)


def parrot_the_login(wire: Wire, seen: Seen) -> None:
    reply(403, f"who is {seen.headers.get('authorization', '')}?".encode())(wire, seen)


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize("answer", [parrot, parrot_the_path, parrot_the_body, parrot_the_login])
def test_keeps_no_secret_that_is_thrown_back(place, kind, answer):
    place.otherwise = answer
    transport, config = sample(kind).at(place.port)
    with pytest.raises(DeliveryFailed) as failure:
        transport.send(envelope(), config)
    assert failure.value.__cause__ is None
    hidden = {name: config[name] for name in transport.secret_fields}
    said = redacted(str(failure.value), hidden.values())  # as tasks.send does before it is kept
    assert not [piece for piece in secrets(kind, config) if piece in said]


AWKWARD = [
    # an envelope at the edges
    {"text": ""},
    {"links": {}},
    {"links": {"Runbook": "javascript:alert(1)"}},
    {"links": {"Runbook": ""}},
    {"links": {f"Link {n}": f"https://example.com/{n}" for n in range(30)}},
    {"links": {"x" * 500: "https://example.com/" + "y" * 5000}},
    {"kind": "news", "severity": "unheard-of"},
    {
        "kind": "test",
        "incident_id": None,
        "payload": {"type": "test", "data": {"incident": None, "monitor": None}},
    },
    {"subject": "x" * 10_000, "text": "☠" * 100_000},
    {"text": "\x00\x01\x1b[31m\u202e" * 100},
]


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize("fields", AWKWARD, ids=range(len(AWKWARD)))
def test_sends_whatever_there_is_to_say(place, kind, fields):
    assert became(*sample(kind).at(place.port), **fields) == ("sent", "")
    assert len(place.received) == 1
