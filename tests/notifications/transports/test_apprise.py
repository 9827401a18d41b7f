"""Services through apprise: only those that are listed, only where the guard lets it, and not a word of its URLs."""

import ast
import gzip
import inspect
import logging
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requests
import trustme
import urllib3
from apprise.plugins import N_MGR

from notifications.transports import TRANSPORTS
from notifications.transports.apprise import HOSTED, OWN_KINDS, SCHEMES, SELF_HOSTED, Apprise
from tests.support import target
from tests.support.sending import became, complaint
from tests.support.target import TargetServer, redirect, reply

TOKEN = "tk-0f1e2d3c4b5a69788796"
transport = TRANSPORTS["apprise"]


def at(hook, scheme: str = "json", path: str = f"/{TOKEN}", query: str = "") -> dict[str, str]:
    return {"url": f"{scheme}://127.0.0.1:{hook.port}{path}{query}"}


# --- what an answer means -----------------------------------------------------------------------------------

JUDGEMENTS = [
    # answer                                        what became of it
    (reply(200),                                    "sent"),
    (reply(204, b""),                               "sent"),
    (reply(400),                                    "permanent"),
    (reply(401),                                    "permanent"),
    (reply(404),                                    "permanent"),
    (reply(410),                                    "gone"),
    (reply(429),                                    "retry"),
    (reply(429, headers=[("Retry-After", "30")]),   "throttled(30)"),
    (reply(503, headers=[("Retry-After", "7")]),    "throttled(7)"),
    (reply(500),                                    "retry"),
    (reply(304, b""),                               "retry"),
    (target.hang_up,                                "retry"),
    (target.not_http,                               "retry"),
    (target.half_headers,                           "sent"),           # a status is an answer
    (target.half_body,                              "sent"),
    (target.echo,                                   "retry"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "meaning"), JUDGEMENTS)
def test_judges_the_last_answer(hook, answer, meaning):
    hook.script(answer)
    word, said = became(transport, at(hook))
    assert word == meaning
    assert TOKEN not in said
    assert len(hook.received) == 1, "trying again is the outbox's"


def test_hands_over_what_is_to_be_said(hook):
    assert became(transport, at(hook)) == ("sent", "")
    assert became(transport, at(hook, "xml"), kind="resolved", severity="info") == ("sent", "")
    assert became(transport, at(hook, "form"), severity="warning") == ("sent", "")
    as_json, as_xml, as_form = hook.received
    assert as_json.path == f"/{TOKEN}"
    assert as_json.json["title"] == "DOWN: Shop (status) ☠"
    assert as_json.json["message"] == 'Shop is down since 12:00.\nIt answered 500 & said "no".'
    assert as_json.json["type"] == "failure"
    tags = {tag.tag.rpartition("}")[2]: tag.text for tag in ElementTree.fromstring(as_xml.body).iter()}
    assert tags["MessageType"] == "success"
    assert b"type=warning" in as_form.body


def test_reaches_a_service_by_its_own_rules(hook):
    hook.otherwise = reply(200)
    assert became(transport, at(hook, "gotify", "/" + "A" * 15)) == ("sent", "")
    [got] = hook.received
    assert (got.path, got.headers["X-Gotify-Key"]) == ("/message", "A" * 15)


def test_cuts_instead_of_sending_in_pieces(hook):
    hook.otherwise = reply(200)
    url = at(hook, "ntfy", "/alerts", "?overflow=split")
    assert became(transport, url, text="x" * 100_000) == ("sent", "")
    assert len(hook.received) == 1


def test_says_so_when_the_service_answers_and_apprise_is_not_content(hook):
    hook.otherwise = reply(200, b'{"error": "no such key"}')
    word, said = became(transport, at(hook, "matrix", "/%23alerts").copy())
    assert word == "retry"
    assert TOKEN not in said


# --- where it may go ----------------------------------------------------------------------------------------

FORBIDDEN = ["10.0.0.1", "169.254.169.254", "192.168.1.1", "[::1]", "2130706433"]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_refuses_a_private_address(settings, host):
    settings.HEALTHMON_ALLOWED_NETS = ()
    config = {"url": f"json://{host}:9/{TOKEN}"}
    word, said = became(Apprise(timeout=5), config)
    assert (word, said[:34]) == ("retry", "The address may not be dialled: " + said[32:34])
    assert TOKEN not in said
    assert "may not be sent to" in complaint(transport, config)["url"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["http://10.0.0.1/", "http://169.254.169.254/latest/", "http://[fd00::1]/"])
def test_refuses_a_redirect_to_a_private_address(hook, to, status):
    hook.script(redirect(to, status))
    word, said = became(transport, at(hook, query="?redirect=yes"))
    assert (word, said[:31]) == ("retry", "The address may not be dialled:")
    assert len(hook.received) == 1


def test_follows_a_redirect_to_where_it_may_go(hook):
    hook.script(redirect(hook.url("/moved"), 307))
    assert became(transport, at(hook)) == ("sent", "")
    assert [got.path for got in hook.received] == [f"/{TOKEN}", "/moved"]


def test_gives_up_on_redirects_without_end(hook):
    hook.otherwise = redirect("/again")
    assert became(transport, at(hook))[0] == "retry"
    assert len(hook.received) < 40


@pytest.fixture
def environment(tmp_path) -> Iterator[None]:
    """Proxies, .netrc and certificates, as an operator's environment may name them."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password hunter2\n")
    netrc.chmod(0o600)
    named = dict.fromkeys(
        ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:1"
    )
    named |= {"NETRC": str(netrc), "no_proxy": ""}
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.mark.usefixtures("environment")
def test_looks_at_no_proxy_and_no_netrc(hook):
    assert became(transport, at(hook)) == ("sent", "")
    assert "Authorization" not in hook.received[0].headers
    with pytest.raises(requests.exceptions.ProxyError):  # and everybody else does
        requests.get(hook.url("/"), timeout=5)


def test_leaves_everybody_else_alone(hook, settings):
    settings.HEALTHMON_ALLOWED_NETS = ()
    assert became(transport, at(hook))[0] == "retry"
    assert requests.get(hook.url("/"), timeout=5).status_code == 204
    assert urllib3.PoolManager().request("GET", hook.url("/"), timeout=5).status == 204


def test_trusts_no_certificate_that_it_does_not_know():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with TargetServer(context) as server:
        word, said = became(transport, {"url": f"jsons://127.0.0.1:{server.port}/{TOKEN}"})
        assert server.seen == []
    assert (word, said[:31]) == ("retry", "A TLS connection could not be m")
    assert TOKEN not in said


# --- how long, how much -------------------------------------------------------------------------------------

SLOW = [target.drip, target.hang]


@pytest.mark.parametrize("answer", SLOW, ids=lambda answer: answer.__name__)
def test_hangs_up_when_the_time_is_over(hook, answer):
    hook.script(answer)
    url = at(hook, query="?rto=300&cto=300&retry=5&wait=60")
    assert became(Apprise(timeout=0.5), url) == ("retry", "There was no answer within 0.5 s.")
    assert len(hook.received) == 1
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_reads_a_megabyte_and_no_more(hook):
    hook.script(target.huge_body)
    assert became(transport, at(hook)) == ("sent", "")
    bomb = gzip.compress(b"\0" * 50_000_000)
    hook.script(reply(200, bomb, [("Content-Encoding", "gzip")]))
    assert became(transport, at(hook)) == ("sent", "")
    hook.script(reply(200, b"not gzip", [("Content-Encoding", "gzip")]))
    assert became(transport, at(hook)) == ("sent", "")


# --- what it says -------------------------------------------------------------------------------------------


def test_logs_nothing_of_what_apprise_says(hook, caplog):
    caplog.set_level(logging.DEBUG)
    for chatty in ("apprise", "urllib3", "requests"):
        caplog.set_level(1, logger=chatty)
    hook.script(reply(200), reply(500), target.echo, target.hang_up, target.half_headers)
    for _ in range(5):
        became(transport, at(hook, path=f"/{TOKEN}/x", query=f"?+X-Key={TOKEN}"))
    complaint(transport, {"url": f"json://{TOKEN}:{TOKEN}@/"})
    complaint(transport, {"url": f"pover://{TOKEN}"})
    assert len(hook.received) == 5
    assert TOKEN not in repr([(record.getMessage(), record.exc_info) for record in caplog.records])


def test_leaves_nothing_on_the_disk(hook):
    home = Path.home()
    before = {path for path in (home / ".local", home / ".cache", home / ".apprise") if path.exists()}
    became(transport, at(hook, "matrix", "/%23alerts"))
    assert {path for path in (home / ".local", home / ".cache", home / ".apprise") if path.exists()} == before
    assert not list(home.glob(".local/share/apprise*"))


# --- configuration ------------------------------------------------------------------------------------------

COMPLAINTS = [
    # url                                               what is wrong
    ("json://127.0.0.1:9/",                             ""),
    ("JSONS://example.com/",                            ""),
    ("jsons://user:password@example.com/?+X-Key=5",     ""),
    ("gotifys://example.com/AAAAAAAAAAAAAAA",           ""),
    ("ntfy://topic",                                    ""),
    ("mmosts://chat.example.com/abcdefghijklmnopqrstuvwxyz", ""),
    ("",                                                "This is needed"),
    (None,                                              "This is needed"),
    (5,                                                 "An apprise URL"),
    (["json://example.com/"],                           "An apprise URL"),
    ("json://example.com/\n",                           "An apprise URL"),
    ("json://example.com/" + "x" * 3000,                "An apprise URL"),
    ("example.com",                                     "That is not among"),
    ("://",                                             "That is not among"),
    ("https://example.com/hook",                        "https is not among"),
    ("http://example.com/hook",                         "http is not among"),
    ("file:///etc/passwd",                              "file is not among"),
    (" syslog://",                                      "An apprise URL"),
    ("json://example.com/ json://example.com/",         "An apprise URL"),
    ("syslog://",                                       "syslog is not among"),
    ("dbus://",                                         "dbus is not among"),
    ("macosx://",                                       "macosx is not among"),
    ("windows://",                                      "windows is not among"),
    ("rsyslog://127.0.0.1",                             "rsyslog is not among"),
    ("mqtt://127.0.0.1/topic",                          "mqtt is not among"),
    ("irc://127.0.0.1/%23x",                            "irc is not among"),
    ("fcm://project@key/device?keyfile=/etc/passwd",    "fcm is not among"),
    ("vapid://mail@example.com/x?keyfile=/etc/passwd",  "vapid is not among"),
    ("mailto://user:pass@example.com",                  "Make a channel of the kind email"),
    ("slack://a/b/c/?template=/etc/passwd",             "Make a channel of the kind slack"),
    ("discord://1/2?template=/etc/passwd",              "Make a channel of the kind discord"),
    ("workflows://h/a/b/c?template=/etc/passwd",        "Make a channel of the kind teams"),
    ("json://",                                         "apprise does not understand"),
    ("pover://nobody",                                  "apprise does not understand"),
    ("jsons://example.com/?verify=no",                  "verify=no is not done"),
    ("ntfys://example.com/one/two",                     "It names 2 to tell"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "problem"), COMPLAINTS)
def test_names_what_is_wrong(url, problem):
    found = complaint(transport, {"url": url})
    assert (bool(found), found.get("url", "")[: len(problem)]) == (bool(problem), problem)


def test_knows_no_other_setting():
    assert set(complaint(transport, {"url": "json://example.com/", "config": "http://x/"})) == {"config"}
    assert transport.secret_fields == {"url"}


DESTINATIONS = [
    # url                                        destination: it is kept and shown, so no part of it may be a token
    ("json://127.0.0.1:8080/path",               "127.0.0.1:8080"),
    ("jsons://user:pass@Example.com/path?a=b",   "example.com"),
    ("jsons://us%40er:p%2Fass@example.com/",     "example.com"),
    (f"ntfy://{TOKEN}",                          "apprise ntfy"),
    (f"pover://user@{TOKEN}",                    "apprise pover"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "destination"), DESTINATIONS)
def test_names_a_destination_without_secrets(url, destination):
    assert transport.destination({"url": url}) == destination


# --- the list, against the version that is installed -------------------------------------------------------

REFUSED = {
    # acts on our host
    "blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows",
    # dials by itself
    "amqp", "amqps", "aprs", "deltachat", "deltachats", "growl", "irc", "ircs", "mailto", "mailtos", "mqtt", "mqtts",
    "nostr", "rsyslog", "smpp", "smpps", "xmpp", "xmpps",
    # reads or writes files that its URL names
    "discord", "fcm", "guilded", "slack", "tgram", "vapid", "workflow", "workflows",
}  # fmt: skip

# What speaks to a network, a host or a file without requests.
DIALS_ITSELF = {
    "aiohttp", "asyncio", "concurrent", "ctypes", "dbus", "ftplib", "gi", "gntp", "hid", "http", "httpx", "imaplib",
    "multiprocessing", "paho", "pathlib", "pika", "poplib", "proton", "serial", "shutil", "slixmpp", "smpplib",
    "smtplib", "socket", "socketserver", "ssl", "subprocess", "syslog", "telnetlib", "tempfile", "urllib.request",
    "urllib3", "websocket", "websockets", "win32api",
}  # fmt: skip


@pytest.fixture(scope="module")
def plugins() -> dict[str, type]:
    assert complaint(transport, {"url": "json://example.com/"}) == {}  # which loads them
    return {scheme: N_MGR[scheme] for scheme in N_MGR.schemas()}


def test_decides_on_every_scheme_of_the_installed_version(plugins):
    assert sorted(set(plugins) - SCHEMES - REFUSED) == [], "new: read its code, then list it here or there"
    assert sorted(SCHEMES - set(plugins)) == [], "gone"
    assert SCHEMES.isdisjoint(REFUSED)
    assert set(OWN_KINDS) <= REFUSED
    assert SELF_HOSTED.isdisjoint(HOSTED)


def test_takes_a_host_for_a_destination_only_where_it_is_always_one(plugins):
    for scheme in SELF_HOSTED:
        assert all("{host}" in template for template in plugins[scheme].templates), scheme


def test_lists_none_that_dials_by_itself_or_reads_files(plugins):
    offences = []
    for scheme in sorted(SCHEMES):
        for module in modules_of(plugins[scheme]):
            source = inspect.getsource(module)
            offences += [f"{scheme}: {name}" for name in imported(source) if dials_itself(name)]
            if "AppriseAttachment(" in source or "AppriseConfig" in source:
                offences.append(f"{scheme}: AppriseAttachment")
    assert offences == []


def modules_of(plugin: type) -> list:
    """The modules of a plugin, of its package and of those it is made from, but for what is common to all."""
    homes = {cls.__module__ for cls in plugin.__mro__ if cls.__module__.startswith("apprise.plugins.")}
    homes.discard("apprise.plugins.base")
    packages = {home.rpartition(".")[0] + "." for home in homes} - {"apprise.plugins."}
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name in homes or any(name.startswith(package) for package in packages)
    ]


def imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def dials_itself(name: str) -> bool:
    return name in DIALS_ITSELF or name.split(".")[0] in DIALS_ITSELF or name.endswith("utils.socket")


def test_finds_those_that_do(plugins):
    """The check above is worth something: it catches what we know of."""
    for scheme in ("irc", "mailto", "rsyslog", "growl", "nostr"):
        names = {
            name for module in modules_of(plugins[scheme]) for name in imported(inspect.getsource(module))
        }
        assert any(dials_itself(name) for name in names), scheme
