"""Second factors: kept sealed, asked for at every door, and taken away by nobody but their owner or a superuser."""

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from accounts import second_factor
from accounts.models import User
from healthmon.lib import sealing
from tests.accounts.test_sign_in import NEW, is_in, sign_in
from tests.support.people import PASSWORD, alice, bob

pytestmark = pytest.mark.django_db


def code(secret: str) -> str:
    _, present, _ = yield_hotp_counters_from_time()
    return format_hotp_value(hotp_value(secret, present))


def forget_used_codes() -> None:
    cache.clear()  # a code works once in its thirty seconds, and a test asks for it twice


def set_up(client: Client) -> str:
    """What an authenticator app knows afterwards."""
    asked = client.get("/account/2fa/totp/activate/")
    assert asked["Location"].startswith("/account/reauthenticate/"), "the password, once more"
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    secret = client.get("/account/2fa/totp/activate/").context["form"].secret
    assert client.post("/account/2fa/totp/activate/", {"code": code(secret)}).status_code == 302
    forget_used_codes()
    return secret


@pytest.fixture
def secret() -> str:
    """Alice is staff and has an authenticator app; this is what it knows."""
    user = alice()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client, _ = sign_in()
    return set_up(client)


def test_is_kept_sealed_and_bound_to_its_owner(secret, settings):
    rows = {row.type: row.data for row in Authenticator.objects.all()}
    assert secret not in str(rows)
    token = rows["totp"]["secret"]
    owner = alice().pk
    assert sealing.unseal(settings.HEALTHMON_FIELD_KEYS, token, f"second factor:{owner}") == secret
    assert sealing.unseal(
        settings.HEALTHMON_FIELD_KEYS, rows["recovery_codes"]["seed"], f"second factor:{owner}"
    )

    # Copied to Bob's name, it opens nothing.
    Authenticator.objects.create(user=bob(), type="totp", data={"secret": token})
    with pytest.raises(sealing.SealBroken):
        second_factor.code_is_right(bob(), code(secret))


def test_is_asked_for_after_the_password(secret):
    client, answer = sign_in()
    assert answer["Location"] == "/account/2fa/authenticate/"
    assert not is_in(client)
    assert client.get("/admin/").status_code == 302
    wrong = client.post("/account/2fa/authenticate/", {"code": "000000"})
    assert wrong.status_code == 200
    assert not is_in(client)
    client.post("/account/2fa/authenticate/", {"code": code(secret)})
    assert is_in(client)
    assert client.get("/admin/").status_code == 200


def test_a_code_works_once(secret):
    given = {"code": code(secret)}
    first, second = sign_in()[0], sign_in()[0]
    first.post("/account/2fa/authenticate/", given)
    second.post("/account/2fa/authenticate/", given)
    assert (is_in(first), is_in(second)) == (True, False)


def test_a_recovery_code_stands_in_for_it_once(secret):
    client, _ = sign_in()
    client.post("/account/2fa/authenticate/", {"code": code(secret)})
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    codes = client.get("/account/2fa/recovery-codes/").context["unused_codes"]
    assert len(codes) == 10
    for expected in (True, False):
        client, _ = sign_in()
        client.post("/account/2fa/authenticate/", {"code": codes[0]})
        assert is_in(client) is expected


def test_stops_guessing(secret, settings):
    settings.ACCOUNT_RATE_LIMITS = {}
    client, _ = sign_in()
    for _ in range(5):
        client.post("/account/2fa/authenticate/", {"code": "000000"})
    client.post("/account/2fa/authenticate/", {"code": code(secret)})
    assert not is_in(client)


@pytest.mark.parametrize("wrong", ["", "0", "abcdef", "é" * 6, "0" * 40])
def test_the_api_asks_for_it_too(secret, wrong):
    given = {"email": "alice@example.com", "password": PASSWORD}
    client = Client()

    def ask(**code):
        return client.post("/api/v1/auth/token/", given | code, content_type="application/json")

    assert ask().status_code == 401
    assert ask(code=wrong).status_code in (400, 401)
    answer = ask(code=code(secret))
    assert answer.status_code == 200
    assert ask(code=code(secret)).status_code == 401, "it works once"


def test_the_console_takes_it_of_whoever_has_one(secret):
    # A session from before it was set up, or from a door that does not ask.
    client = Client()
    client.force_login(alice())
    answer = client.get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/account/2fa/reauthenticate/?next=%2Fadmin%2F"
    client.post("/account/2fa/reauthenticate/", {"code": code(secret), "next": "/admin/"})
    assert client.get("/admin/").status_code == 200


def test_the_console_can_require_one(settings):
    settings.HEALTHMON_REQUIRE_MFA = True
    User.objects.filter(pk=alice().pk).update(is_staff=True)
    client, _ = sign_in()
    answer = client.get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/account/2fa/"
    assert b"The console needs a second factor" in answer.content
    secret = set_up(client)
    answer = client.get("/admin/", follow=True)
    client.post(answer.redirect_chain[-1][0], {"code": code(secret)})
    assert client.get("/admin/").status_code == 200


def test_is_taken_off_only_by_whoever_has_just_shown_who_they_are(secret):
    client, _ = sign_in()
    client.post("/account/2fa/authenticate/", {"code": code(secret)})
    answer = client.post("/account/2fa/totp/deactivate/")
    assert "reauthenticate" in answer["Location"]
    assert second_factor.has_one(alice())
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    session = client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= 301
    session.save()
    client.post("/account/2fa/totp/deactivate/")
    assert second_factor.has_one(alice())
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    client.post("/account/2fa/totp/deactivate/")
    assert not second_factor.has_one(alice())


def test_a_reset_password_is_not_enough(secret):
    user = alice()
    user.set_password(NEW)
    user.save()
    client, answer = sign_in(password=NEW)
    assert answer["Location"] == "/account/2fa/authenticate/"


def test_a_superuser_takes_them_away_of_whoever_lost_theirs(secret):
    root = Client()
    root.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    browser = Client()
    browser.force_login(alice())
    url = f"/admin/accounts/user/{alice().pk}/take-second-factors-away/"
    root.get(url)
    assert second_factor.has_one(alice())
    root.post(url, {"_form_submitted": "True"})
    assert not Authenticator.objects.exists()
    assert not is_in(browser)
    client, _ = sign_in()
    assert is_in(client)


def test_passkeys_are_offered_where_browsers_make_them(settings):
    assert b"passkey" not in Client().get("/account/login/").content
    settings.HEALTHMON_BASE_URL = "https://health.example.com"
    page = Client().get("/account/login/").content.decode()
    assert "Sign in with a passkey" in page
    options = (
        Client(headers={"host": "evil.example.net", "accept": "application/json"})
        .get("/account/2fa/passkeys/login/")
        .json()
    )
    assert options["request_options"]["publicKey"]["rpId"] == "health.example.com"


def test_rotation_seals_them_with_the_newest_key(secret, settings):
    new = sealing.new_key()
    settings.HEALTHMON_FIELD_KEYS = (new, *settings.HEALTHMON_FIELD_KEYS)
    call_command("rotate_field_keys", verbosity=0)
    settings.HEALTHMON_FIELD_KEYS = (new,)
    row = Authenticator.objects.get(type="totp")
    token = second_factor._owner.set(alice().pk)
    try:
        assert TOTP(row).validate_code(code(secret))
    finally:
        second_factor._owner.reset(token)
