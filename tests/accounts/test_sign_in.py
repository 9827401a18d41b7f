"""The web's sign-in: who gets in, what is mailed, and what ends with a password."""

import re
from urllib.parse import urljoin, urlsplit

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client

from accounts.models import User
from tests.support.people import PASSWORD, JsonClient, acme, alice, bob, client_of

pytestmark = pytest.mark.django_db

NEW = "another long password 7"
EVIL = "evil.example.net"


def sign_in(
    email: str = "alice@example.com", password: str = PASSWORD, client: Client | None = None, **extra
):
    client = client or Client()
    query = f"?next={extra.pop('next')}" if "next" in extra else ""
    return client, client.post(f"/account/login/{query}", {"login": email, "password": password} | extra)


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


@pytest.fixture
def open_sign_up(settings):
    settings.HEALTHMON_OPEN_SIGN_UP = "yes"


# --- in and out -------------------------------------------------------------------------------------------------


def test_lets_in_by_address_and_password_however_the_address_is_written():
    alice()
    client, answer = sign_in("Alice@Example.COM")
    assert answer["Location"] == "/account/"
    page = client.get("/account/").content.decode()
    assert "alice@example.com" in page
    assert "Acme" in page


@pytest.mark.parametrize(
    ("email", "password"),
    [("alice@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("alice@example.com", ""), ("", "")],
)
def test_keeps_out(email, password):
    alice()
    client, answer = sign_in(email, password)
    assert answer.status_code == 200
    assert not is_in(client)


def test_keeps_out_whom_an_operator_has_deactivated_at_once():
    alice()
    client, _ = sign_in()
    User.objects.update(is_active=False)
    assert not is_in(client)
    assert sign_in()[1].status_code == 200


def test_signs_out_by_a_post_alone():
    alice()
    client, _ = sign_in()
    assert client.get("/account/logout/").status_code == 200
    assert is_in(client)
    client.post("/account/logout/")
    assert not is_in(client)


@pytest.mark.parametrize(
    "there",
    [
        "https://evil.example.net/", "//evil.example.net/", "/\\evil.example.net", "\\\\evil.example.net", "///evil",
        "https:evil.example.net", "javascript:alert(1)", "http://testserver@evil.example.net/",
        "%2F%2Fevil.example.net", "https://testserver/", "/\t/evil.example.net",
    ],
)  # fmt: skip
def test_leads_nowhere_else_afterwards(there):
    alice()
    for path in ("/account/login/", "/admin/login/"):
        client = Client(headers={"host": EVIL} if "evil" in there else {})
        answer = client.post(
            path,
            {"login": "alice@example.com", "password": PASSWORD, "next": there},
            query_params={"next": there},
        )
        if answer.status_code == 302:
            location = answer["Location"]
            assert urlsplit(urljoin("http://testserver/", location)).netloc == "testserver", location
            assert not re.match(r"[\\\s]|/[/\\\s]|[a-z]+:", location), location


def test_leads_to_where_somebody_wanted_to_go():
    alice()
    assert sign_in(next="/admin/")[1]["Location"] == "/admin/"


def test_stops_guessing(settings):
    settings.ACCOUNT_RATE_LIMITS = {}
    alice()
    for _ in range(5):
        sign_in(password="wrong")
    client, answer = sign_in()
    assert not is_in(client)
    assert b"Too many failed login attempts" in answer.content


# --- passwords --------------------------------------------------------------------------------------------------


def link_in(message: mail.EmailMessage) -> str:
    [link] = re.findall(r"http://127\.0\.0\.1:8000(/account/(?:password|confirm)\S+)", message.body)
    return link


def test_a_reset_leads_to_this_server_whatever_the_host_header_says():
    alice()
    Client(headers={"host": EVIL}).post("/account/password/reset/", {"email": "ALICE@example.com"})
    [message] = mail.outbox
    assert message.to == ["alice@example.com"]
    assert EVIL not in message.body + message.subject
    link_in(message)


def test_a_reset_ends_every_session():
    user = alice()
    browser, _ = sign_in()
    api = client_of(user)
    anonymous = Client()
    anonymous.post("/account/password/reset/", {"email": "alice@example.com"})
    page = anonymous.get(link_in(mail.outbox[0]), follow=True)
    url = page.redirect_chain[-1][0]
    weak = anonymous.post(url, {"password1": "short", "password2": "short"})
    assert weak.status_code == 200
    assert anonymous.post(url, {"password1": NEW, "password2": NEW}).status_code == 302
    assert not is_in(browser)
    assert api.get("/api/v1/me/").status_code == 401
    assert is_in(sign_in(password=NEW)[0])
    # The link has worked once.
    again = Client().get(link_in(mail.outbox[0]), follow=True)
    assert b"Bad Token" in again.content or b"invalid" in again.content


def test_tells_nobody_who_has_an_account():
    alice()
    pages = [
        Client().post("/account/password/reset/", {"email": email}, follow=True).content
        for email in ("alice@example.com", "nobody@example.com")
    ]
    assert pages[0] == pages[1]


def test_says_that_it_sends_no_mail(settings):
    settings.EMAIL_CONFIGURED = False
    for path in ("/account/login/", "/account/password/reset/"):
        assert b"sends no mail" in Client().get(path).content


def test_a_new_password_takes_the_old_one_and_ends_every_session():
    user = alice()
    browser, _ = sign_in()
    api = client_of(user)
    given = {"oldpassword": "wrong", "password1": NEW, "password2": NEW}
    assert browser.post("/account/password/change/", given).status_code == 200
    browser.post("/account/password/change/", given | {"oldpassword": PASSWORD})
    assert not is_in(browser)
    assert api.get("/api/v1/me/").status_code == 401
    assert is_in(sign_in(password=NEW)[0])
    assert any("password" in message.subject.lower() for message in mail.outbox), "the mailbox hears of it"


# --- joining ----------------------------------------------------------------------------------------------------


def sign_up(email: str):
    client = Client(headers={"host": EVIL})
    return client, client.post("/account/signup/", {"email": email, "password1": NEW, "password2": NEW})


def test_nobody_joins_by_themselves_unless_it_was_said():
    assert b"by invitation" in Client().get("/account/signup/").content
    sign_up("dora@example.com")
    assert not User.objects.exists()
    assert b"Sign up" not in Client().get("/account/login/").content


def test_a_new_account_is_let_in_once_its_address_is_verified(open_sign_up):
    assert b"Sign up" in Client().get("/account/login/").content
    client, answer = sign_up("Dora@Example.com")
    assert answer["Location"] == "/account/confirm-email/"
    assert not is_in(client)
    dora = User.objects.get(email="dora@example.com")
    assert not dora.is_staff and not dora.teams.exists()
    assert not is_in(sign_in("dora@example.com", NEW)[0])
    door = {"email": "dora@example.com", "password": NEW}
    refused = JsonClient().post("/api/v1/auth/token/", door)
    assert (refused.status_code, "Verify" in refused.json()["detail"]) == (401, True)

    [message, *_] = mail.outbox
    assert EVIL not in message.body + message.subject
    link = link_in(message)
    client.get(link)
    assert not EmailAddress.objects.get().verified, "a scanner of links verifies nothing"
    client.post(link)
    assert EmailAddress.objects.get().verified
    assert is_in(sign_in("dora@example.com", NEW)[0])
    assert JsonClient().post("/api/v1/auth/token/", door).status_code == 200


def test_signing_up_with_somebodys_address_says_and_changes_nothing(open_sign_up):
    user = alice()
    _, answer = sign_up("ALICE@example.com")
    _, other = sign_up("dora@example.com")
    assert (answer.status_code, answer["Location"]) == (other.status_code, other["Location"])
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    assert User.objects.filter(email__iexact="alice@example.com").count() == 1


def test_an_operator_vouches_for_the_addresses_of_the_accounts_they_make():
    bob()
    sign_in("bob@example.com")
    assert EmailAddress.objects.get().verified
    User.objects.update(email="robert@example.com")
    sign_in("robert@example.com")
    assert EmailAddress.objects.get().email == "robert@example.com"


def test_shows_the_teams_of_whoever_is_in():
    bob(acme())
    client, _ = sign_in("bob@example.com")
    assert b"responder" in client.get("/account/").content
