"""What people ask about people."""

from django.db.models import F, QuerySet

from accounts.models import ApiKey, Invitation, Membership, Team, User


def has_account(email: str) -> bool:
    return User.objects.filter(email=email.lower()).exists()


def teams_of(user: User) -> QuerySet[Team]:
    """The user's teams, each with `role`: what the user is there."""
    return Team.objects.filter(memberships__user=user).annotate(role=F("memberships__role"))


def members_of(team: Team) -> QuerySet[Membership]:
    return Membership.objects.filter(team=team).select_related("user")


def invitations_to(team: Team) -> QuerySet[Invitation]:
    return Invitation.objects.filter(team=team).select_related("invited_by")


def keys_of(team: Team) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(team=team).select_related("created_by")
