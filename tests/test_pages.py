"""What every page of ours tells the browser, and that none loads anything from somewhere else."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from unfold.settings import CONFIG_DEFAULTS

from accounts.models import User
from tests.support.people import PASSWORD, acme
from tests.support.watching import monitor

pytestmark = pytest.mark.django_db

LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "embed": "src",
}


class Loaded(HTMLParser):
    """What a page loads, and what of it a CSP without 'unsafe-inline' would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []
        self.nonces: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADS and (url := given.get(LOADS[tag])):
            self.urls.append(url)
        executable = given.get("type") in (None, "", "module", "text/javascript")
        if tag == "style" or (tag == "script" and executable and not given.get("src")):
            self.inline.append(f"<{tag} {given}>")
        self.inline += [f"{tag} {name}" for name in given if name.startswith("on")]
        if nonce := given.get("nonce"):
            self.nonces.add(nonce)


def addresses(patterns=None, prefix: str = "/") -> list[str]:
    """Every address without a parameter, the API's apart."""
    found = []
    for each in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(each.pattern)
        if isinstance(each, URLResolver):
            found += addresses(each.url_patterns, path)
        elif isinstance(each, URLPattern) and "<" not in path and "(?P" not in path:
            found.append(path.replace("^", "").replace("$", "").replace("\\", ""))
    return [path for path in found if not path.startswith("/api/v1")]


@pytest.fixture
def visitors() -> list[Client]:
    root = User.objects.create_superuser("root@example.com", PASSWORD)
    signed_in = Client()
    signed_in.force_login(root)
    return [Client(), signed_in]


def pages(visitors: list[Client]) -> list[tuple[str, object]]:
    shop = monitor(acme())
    urls = addresses()
    for model in admin.site._registry:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        if row := model._default_manager.first():
            urls += [f"{base}{row.pk}/{tail}/" for tail in ("change", "delete", "history")]
    urls += [f"/admin/monitors/monitor/{shop.pk}/pause/", "/acknowledge/x/", "/invitation/x/", "/nowhere/"]
    urls += ["/account/confirm-email/x/", "/account/password/reset/key/1-x/", "/account/2fa/passkeys/1/edit/"]
    urls += ["/static/accounts/pages.css", "/api/v1/", "/api/v1/monitors/", "/metrics", "/healthz/live"]
    answers = [(url, client.get(url)) for client in visitors for url in dict.fromkeys(urls)]
    for _, answer in answers:
        answer.close()  # files
    return answers


def test_every_page_says_what_it_may_load_and_do(visitors):
    seen = 0
    for url, answer in pages(visitors):
        policy = dict(
            each.strip().partition(" ")[::2] for each in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'", url
        assert policy["frame-ancestors"] == "'none'", url
        assert answer["X-Frame-Options"] == "DENY", url
        assert answer["X-Content-Type-Options"] == "nosniff", url
        assert answer["Referrer-Policy"] == "same-origin", url
        assert "camera=()" in answer["Permissions-Policy"], url
        for directive, sources in policy.items():
            for source in sources.split():
                assert re.fullmatch(
                    r"'(none|self|unsafe-inline|unsafe-eval|nonce-[\w-]{22})'|data:", source
                ), (url, source)
            # Scripts never; and of styles none but the attribute, in the two pages that are not ours to write.
            if "'unsafe-inline'" in sources:
                assert directive == "style-src-attr" and url.startswith(("/admin/", "/api/docs/")), url
            if "'unsafe-eval'" in sources:
                assert directive == "script-src" and url.startswith("/admin/"), url
            if "data:" in sources:
                assert directive == "img-src", url
        seen += 1
    assert seen > 100


def test_no_page_needs_what_its_policy_refuses_or_loads_from_elsewhere(visitors):
    seen = 0
    for url, answer in pages(visitors):
        if "text/html" not in answer.headers.get("Content-Type", ""):
            continue
        found = Loaded()
        found.feed(answer.content.decode())
        assert not found.inline, (url, found.inline)
        for there in found.urls:
            assert not urlsplit(there).netloc and urlsplit(there).scheme in ("", "data"), (url, there)
            if there.startswith("/static/"):
                assert finders.find(urlsplit(there).path.removeprefix("/static/")), (url, there)
        policy = answer.headers["Content-Security-Policy"]
        for nonce in found.nonces:
            assert f"'nonce-{nonce}'" in policy, url
        if "script-src 'nonce-" in policy:
            scripts = answer.content.decode().count("<script nonce=")
            assert scripts == len(re.findall(r'<script[^>]* src="', answer.content.decode())), url
        seen += 1
    assert seen > 60


def test_no_style_of_ours_loads_from_elsewhere():
    for name in (
        "accounts/pages.css",
        "accounts/console.css",
        "accounts/docs.css",
        "incidents/acknowledge.css",
    ):
        text = Path(finders.find(name)).read_text()
        assert not re.search(r"url\(|@import|https?:", text), name


def test_no_two_answers_have_one_nonce():
    policies = {Client().get("/account/login/")["Content-Security-Policy"] for _ in range(5)}
    assert len(policies) == 5


def test_the_consoles_colours_are_those_unfold_would_write_into_each_page():
    text = Path(finders.find("accounts/console.css")).read_text()
    for name, weights in CONFIG_DEFAULTS["COLORS"].items():
        for weight, value in weights.items():
            assert f"--color-{name}-{weight}: {value};" in text


def test_cookies_are_read_by_no_script_and_sent_to_no_other_site():
    client = Client()
    User.objects.create_user("bob@example.com", PASSWORD)
    answer = client.post("/account/login/", {"login": "bob@example.com", "password": PASSWORD})
    cookie = answer.cookies["sessionid"]
    assert cookie["httponly"] and cookie["samesite"] == "Lax"
