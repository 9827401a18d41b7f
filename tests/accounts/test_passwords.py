"""Passwords at rest: how they are hashed, what is taken over from elsewhere, and that nobody learns who has one."""

import pytest
from django.conf import settings
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher, identify_hasher, make_password

from accounts.hashers import Argon2, BCrypt
from accounts.models import User
from tests.support.people import PASSWORD, alice, anonymous

pytestmark = pytest.mark.django_db

LOGIN = "/api/v1/auth/token/"


class Counting(Argon2):
    """Counts how often it is asked to work."""

    work = 0

    def encode(self, password, salt):
        Counting.work += 1
        return super().encode(password, salt)

    def verify(self, password, encoded):
        Counting.work += 1
        return super().verify(password, encoded)


def log_in(email: str, password: str = PASSWORD):
    return anonymous().post(LOGIN, {"email": email, "password": password})


def test_hashes_with_argon2id_and_the_parameters_that_were_measured():
    encoded = make_password(PASSWORD)
    assert encoded.startswith("argon2$argon2id$v=19$m=65536,t=3,p=1$")
    # RFC 9106 and OWASP ask for more than 19 MiB; eight at once must fit into the container's 1 GB.
    assert 19_456 < Argon2.memory_cost <= 98_304


@pytest.mark.parametrize("hasher", [BCryptSHA256PasswordHasher, BCrypt])
def test_takes_a_bcrypt_hash_and_makes_it_anew(hasher):
    quick = type("Quick", (hasher,), {"rounds": 4})()
    user = alice()
    User.objects.filter(pk=user.pk).update(password=quick.encode(PASSWORD, quick.salt()))
    for wrong in ("wrong", "x" * 1_000, "é" * 50):
        assert log_in(user.email, wrong).status_code == 401
    assert log_in(user.email).status_code == 200
    user.refresh_from_db()
    assert identify_hasher(user.password).algorithm == "argon2"
    assert log_in(user.email).status_code == 200


def test_makes_a_hash_of_other_parameters_anew():
    user = alice()
    weak = type("Weak", (Argon2,), {"time_cost": 1, "memory_cost": 8_192})()
    User.objects.filter(pk=user.pk).update(password=weak.encode(PASSWORD, weak.salt()))
    answer = log_in(user.email)
    user.refresh_from_db()
    assert "m=65536,t=3,p=1" in user.password
    # The tokens are those of the new hash, not of the one before.
    client = anonymous()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {answer.json()['access']}")
    assert client.get("/api/v1/me/").status_code == 200


@pytest.mark.parametrize("password", ["!", "", "plain text", "md5$salt$hash"])
def test_a_password_that_is_none_lets_nobody_in(password):
    user = alice()
    User.objects.filter(pk=user.pk).update(password=password)
    for given in (PASSWORD, password or " ", "!"):
        assert log_in(user.email, given).status_code == 401


def test_works_as_hard_for_who_is_not_there(settings):
    """What takes 200 ms for people who have an account and none for others is a list of who has."""
    settings.PASSWORD_HASHERS = [f"{__name__}.Counting"]
    user = alice()
    User.objects.filter(pk=user.pk).update(password=make_password(PASSWORD))
    inactive = User.objects.create_user("inactive@example.com", PASSWORD, is_active=False)
    work = {}
    for email in (user.email, inactive.email, "nobody@example.com"):
        before = Counting.work
        answer = log_in(email, "wrong")
        work[email] = (Counting.work - before, answer.status_code, answer.json()["detail"])
    assert len({str(done) for done in work.values()}) == 1, work
    assert work[user.email][0] == 1


def test_is_not_asked_for_with_every_request(settings):
    settings.PASSWORD_HASHERS = [f"{__name__}.Counting"]
    user = alice()
    client = anonymous()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {log_in(user.email).json()['access']}")
    before = Counting.work
    assert client.get("/api/v1/me/").status_code == 200
    assert Counting.work == before


def test_never_keeps_one_as_it_is():
    user = alice()
    assert PASSWORD not in user.password
    assert all("Unsalted" not in name and "MD5" not in name for name in settings.PASSWORD_HASHERS)
