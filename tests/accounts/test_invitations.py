"""Being asked to join: by mail or without, from an account or without, once."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import services, tokens
from accounts.models import Invitation, Membership, Role, User
from tests.support.people import (
    PASSWORD,
    acme,
    ada,
    alice,
    anonymous,
    bob,
    charlie,
    client_of,
    globex,
    member,
    vera,
)
from tests.support.sinks import smtp_settings

pytestmark = pytest.mark.django_db

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ACCEPT = "/api/v1/invitations/accept/"
NEW = {"name": "Dora", "password": "a horse of another colour"}


def invitations(pk: int | None = None, tail: str = "") -> str:
    return f"/api/v1/teams/{acme().id}/invitations/" + (f"{pk}/{tail}" if pk else "")


def mailed_token() -> str:
    [link] = re.findall(r"http\S+/invitation/(\w+)/", mail.outbox[-1].body)
    return link


def invited(email: str = "dora@example.com", role: Role = Role.RESPONDER, now: datetime | None = None) -> str:
    """The token of a fresh invitation, by Alice."""
    return services.invite(acme(), email, role, by=alice(), now=now or datetime.now(UTC))[1]


def everything_kept() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i::text FROM accounts_invitation i UNION ALL SELECT a::text FROM accounts_auditentry a"
        )
        return str(cursor.fetchall())


# --- inviting -----------------------------------------------------------------------------------------------------


def test_mails_a_link_and_keeps_its_digest_alone():
    answer = client_of(ada()).post(invitations(), {"email": "Dora@Example.com", "role": "viewer"})
    assert answer.status_code == 201, answer.content
    said = answer.json()
    assert (said["email"], said["role"], said["invited_by"]) == (
        "dora@example.com",
        "viewer",
        "ada@example.com",
    )
    assert (said["link"], said["mail_problem"]) == (None, None)
    assert said["mailed_at"] is not None
    [sent] = mail.outbox
    assert (sent.to, sent.subject) == (["dora@example.com"], "Join Acme on healthmon")
    assert "ada@example.com" in sent.body
    token = mailed_token()
    assert sent.body.count(f"http://127.0.0.1:8000/invitation/{token}/") == 1
    assert token not in everything_kept()
    assert Invitation.objects.get().token_hash == tokens.digest(token)
    lasts = Invitation.objects.get().expires_at - Invitation.objects.get().created_at
    assert lasts == timedelta(days=7)


def test_hands_out_the_link_where_there_is_no_mail(settings):
    settings.EMAIL_CONFIGURED = False
    client = client_of(ada())
    said = client.post(invitations(), {"email": "dora@example.com", "role": "viewer"}).json()
    assert not mail.outbox
    assert said["mailed_at"] is None
    token = said["link"].removeprefix("http://127.0.0.1:8000/invitation/").removesuffix("/")
    assert services.invitation_of(token, datetime.now(UTC)).email == "dora@example.com"
    [listed] = client.get(invitations()).json()["results"]
    assert token not in str(listed)
    assert set(listed) == {"id", "email", "role", "invited_by", "created_at", "expires_at", "mailed_at"}


def test_keeps_an_invitation_that_the_mail_server_did_not_take(settings):
    for name, value in smtp_settings(9).items():  # nobody listens there
        setattr(settings, name, value)
    client = client_of(ada())
    answer = client.post(invitations(), {"email": "dora@example.com", "role": "viewer"})
    assert answer.status_code == 201
    said = answer.json()
    assert (said["link"], said["mailed_at"]) == (None, None)
    assert said["mail_problem"] == "The mail server could not be used (ConnectionRefusedError)."
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    again = client.post(invitations(said["id"], "resend/"))
    assert (again.status_code, again.json()["mail_problem"]) == (200, None)
    assert again.json()["mailed_at"] is not None


@pytest.mark.parametrize(
    # who        as what: answer
    ("person", "answers"),
    [
        (alice, {"owner": 201, "admin": 201, "responder": 201, "viewer": 201}),
        (ada,   {"owner": 403, "admin": 201, "responder": 201, "viewer": 201}),
        (bob,   {"owner": 403, "admin": 403, "responder": 403, "viewer": 403}),
        (vera,  {"owner": 403, "admin": 403, "responder": 403, "viewer": 403}),
        (charlie, {"owner": 404, "admin": 404, "responder": 404, "viewer": 404}),
    ],
)  # fmt: skip
def test_lets_a_role_invite_whom_it_may(person, answers):
    client = client_of(person())
    for role, status in answers.items():
        answer = client.post(invitations(), {"email": f"{role}@example.com", "role": role})
        assert answer.status_code == status, role
    made = [role for role, status in answers.items() if status == 201]
    assert Invitation.objects.count() == len(mail.outbox) == len(made)


@pytest.mark.parametrize(
    # who           list   send again, withdraw: of a viewer, of an owner
    ("person", "answers"),
    [
        (alice,   (200, 200, 200, 204)),
        (ada,     (200, 200, 403, 204)),
        (bob,     (403, 403, 403, 403)),
        (vera,    (403, 403, 403, 403)),
        (charlie, (404, 404, 404, 404)),
    ],
)  # fmt: skip
def test_lets_a_role_look_after_invitations(person, answers):
    viewer, _ = services.invite(acme(), "v@example.com", Role.VIEWER, by=alice(), now=NOW)
    owner, _ = services.invite(acme(), "o@example.com", Role.OWNER, by=alice(), now=NOW)
    client = client_of(person())
    assert (
        client.get(invitations()).status_code,
        client.post(invitations(viewer.pk, "resend/")).status_code,
        client.post(invitations(owner.pk, "resend/")).status_code,
        client.delete(invitations(viewer.pk)).status_code,
    ) == answers


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"role": "viewer"}, "#/email"),
        ({"email": "dora@example.com"}, "#/role"),
        ({"email": "no address", "role": "viewer"}, "#/email"),
        ({"email": "a@b.example\nBcc: everybody@example.com", "role": "viewer"}, "#/email"),
        ({"email": f"{'x' * 250}@example.com", "role": "viewer"}, "#/email"),
        ({"email": "dora@example.com", "role": "king"}, "#/role"),
        ({"email": "dora@example.com", "role": "viewer", "team": 7}, "#/team"),
        ({"email": "dora@example.com", "role": "viewer", "token_hash": "x"}, "#/token_hash"),
    ],
)
def test_refuses_an_odd_invitation_and_says_where(given, pointer):
    answer = client_of(ada()).post(invitations(), given)
    assert answer.status_code == 400
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert not mail.outbox


def test_invites_nobody_twice():
    bob()
    client = client_of(ada())
    assert client.post(invitations(), {"email": "BOB@example.com", "role": "viewer"}).status_code == 409
    assert client.post(invitations(), {"email": "dora@example.com", "role": "viewer"}).status_code == 201
    assert client.post(invitations(), {"email": "Dora@example.com", "role": "admin"}).status_code == 409
    assert len(mail.outbox) == 1
    with pytest.raises(IntegrityError, match="invitation_once"), transaction.atomic():
        Invitation.objects.create(team=acme(), email="dora@example.com", token_hash="x", expires_at=NOW)


def test_invites_again_after_an_invitation_is_over():
    invited(now=NOW)
    with pytest.raises(services.AlreadyThere):
        services.invite(
            acme(), "dora@example.com", Role.VIEWER, by=alice(), now=NOW + timedelta(days=6, hours=23)
        )
    services.invite(acme(), "dora@example.com", Role.VIEWER, by=alice(), now=NOW + timedelta(days=7))
    assert Invitation.objects.get().role == "viewer"


def test_does_not_tell_whether_there_is_an_account():
    """The same answer, the same mail and the same queries for who is known here and who is not."""
    charlie()
    client = client_of(ada())
    told = []
    for email in ("charlie@example.com", "nobody0@example.com"):
        with CaptureQueriesContext(connection) as asked:
            answer = client.post(invitations(), {"email": email, "role": "viewer"})
        said = {name: type(value) for name, value in answer.json().items()}
        body = mail.outbox[-1].body.replace(mailed_token(), "TOKEN")
        told.append((answer.status_code, said, re.sub(r"\d", "0", body), len(asked)))
    assert told[0] == told[1]


def test_a_resent_link_replaces_the_first():
    client = client_of(ada())
    made = client.post(invitations(), {"email": "dora@example.com", "role": "viewer"}).json()
    first = mailed_token()
    answer = client.post(invitations(made["id"], "resend/"))
    assert answer.status_code == 200, answer.content
    second = mailed_token()
    assert first != second
    assert anonymous().post(ACCEPT, {"token": first} | NEW).status_code == 404
    assert anonymous().post(ACCEPT, {"token": second} | NEW).status_code == 201


def test_a_withdrawn_one_does_not_work():
    token = invited()
    assert client_of(alice()).delete(invitations(Invitation.objects.get().pk)).status_code == 204
    assert anonymous().post(ACCEPT, {"token": token} | NEW).status_code == 404
    assert client_of(alice()).delete(invitations(7)).status_code == 404


@pytest.mark.parametrize("tail", ["", "resend/"])
def test_hides_the_invitations_of_other_teams(tail):
    charlie()
    theirs, _ = services.invite(globex(), "x@example.com", Role.VIEWER, by=charlie(), now=NOW)
    client = client_of(alice())
    act = client.post if tail else client.delete
    assert act(invitations(theirs.pk, tail)).status_code == 404
    assert act(f"/api/v1/teams/{globex().id}/invitations/{theirs.pk}/{tail}").status_code == 404
    assert Invitation.objects.count() == 1


# --- accepting ----------------------------------------------------------------------------------------------------


def test_makes_an_account_for_who_has_none():
    answer = anonymous().post(ACCEPT, {"token": invited()} | NEW)
    assert answer.status_code == 201, answer.content
    assert (answer.json()["slug"], answer.json()["role"]) == ("acme", "responder")
    dora = User.objects.get(email="dora@example.com")
    assert (dora.name, dora.is_staff, dora.is_superuser) == ("Dora", False, False)
    assert Membership.objects.get(user=dora).role == "responder"
    login = anonymous().post("/api/v1/auth/token/", {"email": dora.email, "password": NEW["password"]})
    assert login.status_code == 200


def test_works_once():
    token = invited()
    assert anonymous().post(ACCEPT, {"token": token} | NEW).status_code == 201
    answer = anonymous().post(ACCEPT, {"token": token} | NEW)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert not Invitation.objects.exists()


def test_works_for_seven_days():
    token = invited(now=NOW)
    assert services.invitation_of(token, NOW + timedelta(days=7, seconds=-1))
    late = {"by": None, "name": "", "password": NEW["password"], "now": NOW + timedelta(days=7)}
    with pytest.raises(services.InvitationGone):
        services.accept(token, **late)
    assert not User.objects.filter(email="dora@example.com").exists()


def test_says_the_same_of_every_link_that_does_not_work():
    over = invited("late@example.com", now=datetime(2020, 1, 1, tzinfo=UTC))
    used = invited("used@example.com")
    anonymous().post(ACCEPT, {"token": used} | NEW)
    digest = tokens.digest(invited("kept@example.com"))
    answers = [
        anonymous().post(ACCEPT, {"token": token} | NEW)
        for token in (over, used, "never", digest, "\u0131" * 43, "' OR 1=1 --")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.json()["detail"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "#/password"),
        ({"password": "short"}, "#/password"),
        ({"password": "password1234"}, "#/password"),  # common
        ({"password": "dora@example.com"}, "#/password"),  # like the address
        ({"password": 7}, "#/password"),
        ({"password": "x" * 1_001}, "#/password"),
        (NEW | {"name": "a\nb"}, "#/name"),
        (NEW | {"name": "x" * 101}, "#/name"),
        (NEW | {"role": "owner"}, "#/role"),
        (NEW | {"email": "other@example.com"}, "#/email"),
        (NEW | {"is_staff": True}, "#/is_staff"),
    ],
)
def test_refuses_an_odd_answer_and_leaves_the_invitation(given, pointer):
    token = invited()
    answer = anonymous().post(ACCEPT, {"token": token} | given)
    assert answer.status_code == 400, answer.content
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert not User.objects.filter(email="dora@example.com").exists()
    assert anonymous().post(ACCEPT, {"token": token} | NEW).status_code == 201


def test_who_has_an_account_logs_in_first():
    charlie()
    token = invited("charlie@example.com")
    answer = anonymous().post(ACCEPT, {"token": token} | NEW)
    assert answer.status_code == 401
    assert "log in" in answer.json()["detail"]
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert not User.objects.get(email="charlie@example.com").check_password(NEW["password"])
    assert client_of(charlie()).post(ACCEPT, {"token": token}).status_code == 201
    assert Membership.objects.get(team=acme(), user=charlie()).role == "responder"
    assert User.objects.get(email="charlie@example.com").check_password(PASSWORD)


def test_is_for_nobody_else():
    token = invited("dora@example.com")
    answer = client_of(charlie()).post(ACCEPT, {"token": token})
    assert answer.status_code == 403
    assert not Membership.objects.filter(team=acme(), user=charlie()).exists()
    assert Invitation.objects.exists()


def test_a_stale_access_token_is_refused_and_not_taken_for_nobody():
    client = anonymous()
    client.credentials(HTTP_AUTHORIZATION="Bearer stale")
    assert client.post(ACCEPT, {"token": invited()} | NEW).status_code == 401
    assert Invitation.objects.exists()


def test_does_not_open_a_deactivated_account():
    charlie()
    token = invited("charlie@example.com")
    User.objects.filter(email="charlie@example.com").update(is_active=False)
    assert anonymous().post(ACCEPT, {"token": token} | NEW).status_code == 401


def test_leaves_the_role_of_who_is_there_already():
    token = invited("vera@example.com", Role.ADMIN)
    member("vera", Role.VIEWER, acme())
    answer = client_of(vera()).post(ACCEPT, {"token": token})
    assert (answer.status_code, answer.json()["role"]) == (201, "viewer")


@pytest.mark.django_db(transaction=True)
def test_of_two_who_accept_at_once_one_joins():
    token = invited()

    def attempt(_):
        try:
            return anonymous().post(ACCEPT, {"token": token} | NEW).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == [201, 404]
    assert Membership.objects.filter(user__email="dora@example.com").count() == 1


# --- in a browser ---------------------------------------------------------------------------------------------------


def page(token: str) -> str:
    return f"/invitation/{token}/"


def test_the_page_asks_and_changes_nothing_by_itself():
    token = invited()
    client = Client()
    for ask in (client.get, client.head):
        answer = ask(page(token))
        assert answer.status_code == 200
    shown = client.get(page(token)).content.decode()
    assert "Acme" in shown
    assert "alice@example.com" in shown
    assert 'type="password"' in shown
    assert "csrfmiddlewaretoken" in shown
    assert answer["Referrer-Policy"] == "same-origin"
    assert "no-store" in answer["Cache-Control"]
    assert Invitation.objects.exists()
    assert client.put(page(token)).status_code == 405


def test_the_page_makes_an_account():
    answer = Client().post(page(invited()), NEW)
    assert answer.status_code == 200, answer.content
    assert "You are on the team Acme now" in answer.content.decode()
    assert User.objects.get(email="dora@example.com").check_password(NEW["password"])


def test_the_page_says_why_a_password_will_not_do():
    token = invited()
    for password, says in (("short", "too short"), ("", "required"), ("password1234", "too common")):
        answer = Client().post(page(token), {"name": "", "password": password})
        assert answer.status_code == 400
        assert says in answer.content.decode()
    answer = Client().post(page(token), NEW | {"name": "a\u2028b"})
    assert answer.status_code == 400
    assert Invitation.objects.exists()


def test_the_page_takes_a_token_of_its_own_form():
    client = Client(enforce_csrf_checks=True)
    assert client.post(page(invited()), NEW).status_code == 403
    assert Invitation.objects.exists()


def test_the_page_sends_who_has_an_account_to_sign_in():
    charlie()
    token = invited("charlie@example.com")
    for answer in (Client().get(page(token)), Client().post(page(token), NEW)):
        assert answer.status_code == 200
        assert f"?next={page(token)}" in answer.content.decode()
        assert 'type="password"' not in answer.content.decode()
    assert Invitation.objects.exists()
    client = Client()
    client.force_login(charlie())
    assert "csrfmiddlewaretoken" in client.get(page(token)).content.decode()
    assert client.post(page(token)).status_code == 200
    assert Membership.objects.get(team=acme(), user=charlie()).role == "responder"


def test_the_page_refuses_somebody_else():
    token = invited("dora@example.com")
    client = Client()
    client.force_login(charlie())
    for answer in (client.get(page(token)), client.post(page(token))):
        assert answer.status_code == 403
        assert "you are signed in as charlie@example.com" in answer.content.decode()
    assert Invitation.objects.exists()


def test_the_page_says_when_a_link_does_not_work():
    for token in ("never", "x" * 5_000):
        answer = Client().get(page(token))
        assert answer.status_code == 404
        assert "does not work" in answer.content.decode()
        assert Client().post(page(token), NEW).status_code == 404


def test_the_page_escapes_what_it_shows():
    token = invited()
    team = acme()
    team.name = "<script>alert(1)</script>"
    team.save()
    shown = Client().get(page(token)).content.decode()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_subject_is_one_line():
    team = acme()
    team.name = "Acme\nBcc: everybody@example.com"
    team.save()
    assert (
        client_of(ada()).post(invitations(), {"email": "d@example.com", "role": "viewer"}).status_code == 201
    )
    assert mail.outbox[0].subject == "Join Acme Bcc: everybody@example.com on healthmon"
