"""What people do with users and teams."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from accounts.models import Membership, Role, Team, User

# Any number, the same in every process; one bootstrap at a time holds it.
BOOTSTRAP_LOCK = 0x6865616C7468
UNMISTAKABLE = "abcdefghjkmnpqrstuvwxyz23456789"  # read aloud or copied by hand: no 0 and o, no 1, i and l


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOwner:
    email: str
    password: str | None  # only if it was made up here; it can be read nowhere else
    created: bool


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
