"""What people do with users, teams, invitations and keys.

Whoever changes who is on a team holds the lock of the team's row while they look and write. So two owners who leave at
once do not both go, and what an admin may do is judged by what they are at that moment.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, connection, transaction

from accounts import authentication, second_factor, tokens
from accounts.models import ApiKey, Invitation, Membership, Role, Scope, Team, User
from accounts.permissions import reaches

# Any number, the same in every process; one bootstrap at a time holds it.
BOOTSTRAP_LOCK = 0x6865616C7468
UNMISTAKABLE = "abcdefghjkmnpqrstuvwxyz23456789"  # read aloud or copied by hand: no 0 and o, no 1, i and l
INVITATION_LASTS = timedelta(days=7)


class RoleTooLow(Exception):
    """One sentence: what it takes."""


class LastOwner(Exception):
    def __init__(self) -> None:
        super().__init__("A team keeps an owner: make somebody else one first.")


class AlreadyThere(Exception):
    """One sentence: who is on the team, or invited, already."""


class InvitationGone(Exception):
    def __init__(self) -> None:
        super().__init__(
            "This invitation does not work: it was used, withdrawn, or is older than seven days."
        )


class LoginNeeded(Exception):
    """There is an account of the address that was invited; its owner has to be logged in."""


class SomebodyElse(Exception):
    """Whoever is logged in is not whom the invitation is for."""


class WrongPassword(Exception):
    pass


class AddressTaken(Exception):
    def __init__(self) -> None:
        super().__init__("Another account has this address.")


class LastSuperuser(Exception):
    def __init__(self) -> None:
        super().__init__("Somebody has to run this healthmon: make somebody else a superuser first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOwner:
    email: str
    password: str | None  # only if it was made up here; it can be read nowhere else
    created: bool


# --- teams and who is on them ---------------------------------------------------------------------------


@transaction.atomic
def create_team(name: str, slug: str, *, owner: User, now: datetime) -> Team:
    team = Team.objects.create(name=name, slug=slug, created_at=now)
    add_member(team, owner, Role.OWNER, now=now)
    return team


def add_member(team: Team, user: User, role: Role, *, now: datetime) -> Membership:
    """Put the user on the team, or change the role of one who is there already."""
    membership, _ = Membership.objects.update_or_create(
        team=team, user=user, defaults={"role": role}, create_defaults={"role": role, "created_at": now}
    )
    return membership


@transaction.atomic
def set_role(team: Team, user_id: int, role: Role, *, by: User) -> Membership:
    """
    Make a member something else. Raises Membership.DoesNotExist, RoleTooLow, LastOwner.

    Invitations of theirs that they could not make any more are withdrawn: those would be a way back.
    """
    mine, theirs = _seats(team, user_id, by)
    _need(mine, Role.OWNER if Role.OWNER in (role, theirs.role) else Role.ADMIN)
    if theirs.role == Role.OWNER and role != Role.OWNER:
        _need_another_owner(theirs)
    theirs.role = role
    theirs.save(update_fields=["role"])
    sent = Invitation.objects.filter(team=team, invited_by=theirs.user_id)
    if not reaches(role, Role.ADMIN):
        sent.delete()
    elif role != Role.OWNER:
        sent.filter(role=Role.OWNER).delete()
    return theirs


@transaction.atomic
def remove_member(
    team: Team, user_id: int, *, by: User, now: datetime, keep_keys: bool = False
) -> Membership:
    """
    Take somebody off the team, who may be oneself. Raises Membership.DoesNotExist, RoleTooLow, LastOwner.

    The next request of theirs finds the team gone. Their invitations are withdrawn, and the keys they made there are
    revoked unless `keep_keys`: they have seen them. Their sessions go on, for these are theirs and not the team's.
    """
    mine, theirs = _seats(team, user_id, by)
    if theirs.user_id != by.pk:
        _need(mine, Role.OWNER if theirs.role == Role.OWNER else Role.ADMIN)
    if theirs.role == Role.OWNER:
        _need_another_owner(theirs)
    Membership.objects.filter(pk=theirs.pk).delete()
    Invitation.objects.filter(team=team, invited_by=theirs.user_id).delete()
    if not keep_keys:
        keys = ApiKey.objects.filter(team=team, created_by=theirs.user_id, revoked_at=None)
        keys.update(revoked_at=now)
    return theirs


def _seats(team: Team, user_id: int, by: User) -> tuple[Membership, Membership]:
    _lock(team)
    seats = {
        seat.user_id: seat
        for seat in Membership.objects.filter(team=team, user__in={user_id, by.pk}).select_related("user")
    }
    if user_id not in seats or by.pk not in seats:
        raise Membership.DoesNotExist
    return seats[by.pk], seats[user_id]


def _lock(team: Team) -> None:
    # NO KEY: rows that point to the team are written meanwhile, by probes above all.
    list(Team.objects.select_for_update(no_key=True).filter(pk=team.pk))


def _need(mine: Membership, minimum: Role) -> None:
    if not reaches(Role(mine.role), minimum):
        raise RoleTooLow(f"This takes the role {minimum}; yours is {mine.role}.")


def _need_another_owner(owner: Membership) -> None:
    # One who cannot log in cannot own: deactivated accounts do not count.
    others = Membership.objects.filter(team=owner.team_id, role=Role.OWNER, user__is_active=True)
    if not others.exclude(pk=owner.pk).exists():
        raise LastOwner


# --- invitations ----------------------------------------------------------------------------------------


@transaction.atomic
def invite(team: Team, email: str, role: Role, *, by: User, now: datetime) -> tuple[Invitation, str]:
    """
    Ask somebody to join: the invitation, and the token of its link, which can be read nowhere else.

    Whether there is an account of that address is not looked at: nobody learns it here.
    Raises RoleTooLow, and AlreadyThere for who is on the team or has an invitation that is still good.
    """
    email = email.lower()
    _lock(team)
    _need(Membership.objects.get(team=team, user=by), Role.OWNER if role == Role.OWNER else Role.ADMIN)
    if Membership.objects.filter(team=team, user__email=email).exists():
        raise AlreadyThere(f"{email} is on the team already.")
    Invitation.objects.filter(team=team, email=email, expires_at__lte=now).delete()
    if Invitation.objects.filter(team=team, email=email).exists():
        raise AlreadyThere(f"{email} is invited already: send it again, or withdraw it.")
    token = tokens.new_token()
    invitation = Invitation.objects.create(
        team=team,
        email=email,
        role=role,
        token_hash=tokens.digest(token),
        invited_by=by,
        created_at=now,
        expires_at=now + INVITATION_LASTS,
    )
    return invitation, token


@transaction.atomic
def invite_again(invitation: Invitation, *, by: User, now: datetime) -> tuple[Invitation, str]:
    """
    Another link for seven days more; the old one does not work any more. It is `by`'s from now on.

    Raises RoleTooLow, and Invitation.DoesNotExist if it was used or withdrawn meanwhile.
    """
    _lock(invitation.team)
    invitation = Invitation.objects.select_for_update().get(pk=invitation.pk)
    mine = Membership.objects.get(team=invitation.team_id, user=by)
    _need(mine, Role.OWNER if invitation.role == Role.OWNER else Role.ADMIN)
    token = tokens.new_token()
    invitation.token_hash = tokens.digest(token)
    invitation.invited_by, invitation.mailed_at = by, None
    invitation.expires_at = now + INVITATION_LASTS
    invitation.save()
    return invitation, token


def invitation_of(token: str, now: datetime) -> Invitation:
    """What a link's token stands for, with its team and who sent it. Raises InvitationGone."""
    found = Invitation.objects.select_related("team", "invited_by")
    invitation = found.filter(token_hash=tokens.digest(token), expires_at__gt=now).first()
    if invitation is None:
        raise InvitationGone
    return invitation


@transaction.atomic
def accept(token: str, *, by: User | None, name: str, password: str, now: datetime) -> Membership:
    """
    Join a team. by: who is logged in. Who has no account gets one, with this name and password.

    Who is on the team already keeps the role they have: a link must not undo what was decided since it was sent.
    Raises InvitationGone, SomebodyElse, LoginNeeded, and Django's ValidationError for a password that is too weak.
    """
    invitation = invitation_of(token, now)
    # Locked, and looked at again: of two who accept at once the second finds nothing, and so does a link that is just
    # being replaced.
    same = Invitation.objects.select_for_update().filter(pk=invitation.pk, token_hash=invitation.token_hash)
    if not list(same):
        raise InvitationGone
    if by and by.email != invitation.email:
        raise SomebodyElse(f"This invitation is for {invitation.email}; you are logged in as {by.email}.")
    if by is None:
        by = _sign_up(invitation.email, name, password, now)
    membership, _ = Membership.objects.get_or_create(
        team=invitation.team, user=by, defaults={"role": invitation.role, "created_at": now}
    )
    invitation.delete()
    membership.team = invitation.team
    return membership


def _sign_up(email: str, name: str, password: str, now: datetime) -> User:
    taken = LoginNeeded(f"There is an account of {email}: log in, then accept.")
    if User.objects.filter(email=email).exists():
        raise taken
    validate_password(password, User(email=email, name=name))
    try:
        with transaction.atomic():
            return User.objects.create_user(email, password, name=name, date_joined=now)
    except IntegrityError:
        raise taken from None  # made by somebody else in between


# --- keys -----------------------------------------------------------------------------------------------


@transaction.atomic
def create_key(
    team: Team,
    name: str,
    scopes: Collection[Scope],
    *,
    by: User,
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A key, and what is shown of it this once. Raises RoleTooLow, and Membership.DoesNotExist for who is not there."""
    _lock(team)
    _need(Membership.objects.get(team=team, user=by), Role.ADMIN)
    new = tokens.new_key()
    key = ApiKey.objects.create(
        team=team,
        name=name,
        prefix=new.prefix,
        secret_hash=new.kept,
        scopes=[scope for scope in Scope.values if scope in scopes],
        created_by=by,
        created_at=now,
        expires_at=expires_at,
    )
    return key, new.shown


def revoke_keys(keys: Collection[ApiKey], now: datetime) -> int:
    """Close keys for ever, from their next request on. Returns how many were open."""
    return ApiKey.objects.filter(pk__in=[key.pk for key in keys], revoked_at=None).update(revoked_at=now)


# --- oneself --------------------------------------------------------------------------------------------


@transaction.atomic
def change_password(user: User, old: str, new: str) -> User:
    """
    Every session of theirs ends with the old password. Raises WrongPassword, and Django's ValidationError for a new
    one that is too weak.
    """
    user = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if not user.check_password(old):
        raise WrongPassword
    validate_password(new, user)
    user.set_password(new)
    user.save(update_fields=["password"])
    authentication.close_sessions(user)
    return user


# --- accounts, as superusers see them --------------------------------------------------------------------


@transaction.atomic
def create_user(columns: Mapping[str, Any], now: datetime) -> User:
    """Make an account; `password` among its columns is the plain one, or missing. Raises AddressTaken."""
    given = dict(columns)
    with _address_free():
        return User.objects.create_user(
            given.pop("email"), given.pop("password", None), date_joined=now, **given
        )


@transaction.atomic
def change_user(user: User, columns: Mapping[str, Any]) -> User:
    """
    Change an account. Who is deactivated or gets another password is logged out everywhere.

    Raises AddressTaken, and LastSuperuser.
    """
    given = dict(columns)
    stays_able = given.get("is_superuser", True) and given.get("is_active", True)
    if not stays_able and is_last_superuser(user):
        raise LastSuperuser
    user = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    was_active = user.is_active
    password = given.pop("password", None)
    for name, value in given.items():
        setattr(user, name, value)
    if password is not None:
        user.set_password(password)
    with _address_free():
        user.save()
    if password is not None or (was_active and not user.is_active):
        authentication.close_sessions(user)
    return user


@transaction.atomic
def is_last_superuser(user: User) -> bool:
    """Whether nobody else can run this installation. Inside a transaction the answer holds until its end."""
    able = (
        User.objects.filter(is_superuser=True, is_active=True).order_by("pk").select_for_update(no_key=True)
    )
    return {one.pk for one in able} == {user.pk}


@transaction.atomic
def take_second_factors_away(user: User) -> int:
    """Remove the second factors of somebody who has lost theirs, log them out everywhere, and return how many."""
    count = second_factor.take_away(user)
    authentication.close_sessions(user)
    return count


@contextmanager
def _address_free() -> Iterator[None]:
    try:
        with transaction.atomic():
            yield
    except IntegrityError as problem:
        if "email" not in str(problem):
            raise
        raise AddressTaken from None


# --- the first one --------------------------------------------------------------------------------------


@transaction.atomic
def create_first_owner(email: str, password: str, *, now: datetime) -> FirstOwner:
    """
    Create the team "default" and its owner, who may also enter the console, unless there is any user yet.

    password: "" to have one made up. However many call this at once, one of them creates.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [BOOTSTRAP_LOCK])
    first = User.objects.order_by("id").first()
    if first:
        return FirstOwner(email=first.email, password=None, created=False)
    made_up = "" if password else readable_password()
    owner = User.objects.create_superuser(email, password or made_up, date_joined=now)
    create_team("Default", "default", owner=owner, now=now)
    return FirstOwner(email=owner.email, password=made_up or None, created=True)


def readable_password() -> str:
    """Four groups of five, such as `h7kqm-…`: 99 bits."""
    return "-".join("".join(secrets.choice(UNMISTAKABLE) for _ in range(5)) for _ in range(4))
