"""Single sign-on, with an issuer of our own on a real socket."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from allauth.socialaccount.models import SocialAccount
from cryptography.hazmat.primitives.asymmetric import rsa
from django.test import Client

from accounts.models import User
from tests.accounts.test_sign_in import is_in, sign_in
from tests.support.people import PASSWORD, alice, bob

pytestmark = pytest.mark.django_db

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CALLBACK = "http://127.0.0.1:8000/account/sso/login/callback/"


class Issuer:
    """Answers as one should; `claims`, `said` and `config` change what it says, `key` what it signs with."""

    def __init__(self) -> None:
        self.claims: dict = {}
        self.said: dict = {}
        self.config: dict = {}
        self.key = KEY
        self.status = 200
        self.asked: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                issuer.asked.append(self.path)
                length = int(self.headers.get("Content-Length", 0))
                issuer.posted = parse_qs(self.rfile.read(length).decode())
                status, body = issuer.answer(self.path)
                content = json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", body["to"])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict]:
        if self.status != 200:
            return self.status, {"to": f"{self.url}/elsewhere"}
        public = KEY.public_key().public_numbers()
        now = int(time.time())
        claims = {
            "sub": "42",
            "email": "dora@example.com",
            "email_verified": True,
            "name": "Dora",
        } | self.claims
        return 200, {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "authorization_endpoint": "https://login.example.com/authorize",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/jwks",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }
            | self.config,
            "/jwks": {
                "keys": [{"kty": "RSA", "kid": "1", "alg": "RS256", "n": _number(public.n), "e": _number(public.e)}]
            },
            "/token": {
                "access_token": "at",
                "token_type": "Bearer",
                "id_token": jwt.encode(
                    {"iss": self.url, "aud": "healthmon", "exp": now + 60, "iat": now} | claims,
                    self.key,
                    algorithm="RS256",
                    headers={"kid": "1"},
                ),
            },
            "/userinfo": claims | self.said,
        }[path]  # fmt: skip


def _number(value: int) -> str:
    return (
        base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    )


@pytest.fixture
def issuer(settings) -> Iterator[Issuer]:
    issuer = Issuer()
    settings.HEALTHMON_OIDC_ISSUER = issuer.url
    settings.HEALTHMON_OIDC_NAME = "Acme"
    settings.HEALTHMON_OPEN_SIGN_UP = "sso"
    app = {"provider_id": "sso", "name": "Acme", "client_id": "healthmon", "secret": "hush-hush"}
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]
        | {"APPS": [app | {"settings": {"server_url": issuer.url}}]}
    }
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


def begin(client: Client, query: str = "") -> dict[str, str]:
    """Press the button; what is sent along to the issuer."""
    page = client.post(f"/account/sso/login/{query}")
    assert page.status_code == 200, page
    there = urlsplit(page.context["there"])
    assert there.netloc == "login.example.com"
    assert "http-equiv" in page.content.decode()
    return {name: values[0] for name, values in parse_qs(there.query).items()}


def come_back(client: Client, query: str = "", **extra: str):
    sent = begin(client, query)
    return client.get(
        "/account/sso/login/callback/", {"code": "c", "state": sent["state"]} | extra, follow=True
    )


def test_signs_in_and_makes_the_account(issuer):
    client = Client(headers={"host": "evil.example.net"})
    assert b"Sign in with Acme" in client.get("/account/login/").content
    sent = begin(client)
    assert sent["redirect_uri"] == CALLBACK
    assert sent["code_challenge_method"] == "S256"
    come_back(client)
    assert is_in(client)
    dora = User.objects.get()
    assert (dora.email, dora.name, dora.is_staff, dora.has_usable_password()) == (
        "dora@example.com",
        "Dora",
        False,
        False,
    )
    account = SocialAccount.objects.get()
    assert account.uid == f"{issuer.url} 42"
    assert set(account.extra_data["userinfo"]) == {"sub", "email", "name"}
    assert issuer.posted == {} and "/token" in issuer.asked


def test_knows_people_by_issuer_and_subject_and_not_by_address(issuer):
    come_back(Client())
    issuer.claims = {"email": "renamed@example.com"}
    again = Client()
    come_back(again)
    assert is_in(again)
    assert User.objects.count() == 1

    # The same address in another's hands is nobody, and is told so.
    issuer.claims = {"sub": "43", "email": "dora@example.com"}
    other = Client()
    come_back(other)
    assert not is_in(other)
    assert User.objects.count() == 1


def test_another_issuers_people_are_others(issuer, settings):
    come_back(Client())
    account = SocialAccount.objects.get()
    assert account.uid.startswith(issuer.url), "so 42 of another issuer is another key"


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("configured", [True, False])
def test_an_address_stands_for_an_account_only_if_both_say_so(issuer, settings, configured, verified):
    user = alice()
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION = configured
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = configured
    issuer.claims = {"email": "alice@example.com", "email_verified": verified}
    client = Client()
    come_back(client)
    assert is_in(client) is (configured and verified)
    assert SocialAccount.objects.filter(user=user).exists() is (configured and verified)


def test_makes_no_account_unless_sign_up_is_open(issuer, settings):
    settings.HEALTHMON_OPEN_SIGN_UP = "no"
    client = Client()
    assert b"by invitation" in come_back(client).content
    assert not User.objects.exists()


def test_is_connected_by_whoever_is_signed_in(issuer, settings):
    settings.HEALTHMON_OPEN_SIGN_UP = "no"
    bob()
    client, _ = sign_in("bob@example.com")
    asked = come_back(client, "?process=connect")
    assert asked.redirect_chain[-1][0] == "/account/reauthenticate/", "the password, once more"
    assert not SocialAccount.objects.exists()
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    assert SocialAccount.objects.get().user == bob()
    again = Client()
    come_back(again)
    assert is_in(again)
    assert client.get("/account/sso/").status_code == 200


WRONG = {
    "another audience": ({"claims": {"aud": "somebody-else"}}, {}),
    "another issuer in the token": ({"claims": {"iss": "https://evil.example.net"}}, {}),
    "expired": ({"claims": {"exp": 1}}, {}),
    "signed by somebody else": ({"key": OTHER_KEY}, {}),
    "user info of somebody else": ({"said": {"sub": "43"}}, {}),
    "no subject": ({"claims": {"sub": ""}}, {}),
    "a wrong state": ({}, {"state": "x"}),
    "an error": ({}, {"error": "server_error"}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_lets_nobody_in_with(issuer, wrong):
    changed, sent = wrong
    for name, value in changed.items():
        setattr(issuer, name, value)
    client = Client()
    answer = come_back(client, **sent)
    assert answer.status_code < 500
    assert not is_in(client)
    assert not User.objects.exists()


BROKEN = {
    "another issuer in its configuration": {"config": {"issuer": "https://evil.example.net"}},
    "no endpoints": {"config": {"jwks_uri": None, "token_endpoint": None}},
    "an error of its own": {"status": 503},
    "a redirect": {"status": 302},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_says_that_it_did_not_work_when_the_issuer_has(issuer, broken):
    for name, value in broken.items():
        setattr(issuer, name, value)
    client = Client()
    answer = client.post("/account/sso/login/", follow=True)
    if answer.context and "there" in answer.context:
        answer = come_back(client)
    assert answer.status_code == 401
    assert b"Acme did not work" in answer.content
    assert "/elsewhere" not in issuer.asked


def test_dials_no_address_that_the_guard_refuses(issuer, settings):
    settings.HEALTHMON_ALLOWED_NETS = ()
    answer = Client().post("/account/sso/login/", follow=True)
    assert b"Acme did not work" in answer.content
    assert not issuer.asked, "no packet has left"


def test_takes_nothing_from_the_query_of_a_link(issuer):
    sent = begin(
        Client(),
        "?auth_params=redirect_uri%3Dhttps%253A%252F%252Fevil.example.net%26prompt%3Dnone&scope=admin",
    )
    assert sent["redirect_uri"] == CALLBACK
    assert "prompt" not in sent
    assert set(sent["scope"].split()) == {"openid", "profile", "email"}


def test_is_not_there_without_an_issuer():
    assert Client().post("/account/sso/login/").status_code == 404
    assert b"single sign-on" not in Client().get("/account/login/").content
