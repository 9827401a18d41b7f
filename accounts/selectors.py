"""What people ask about people."""

from django.db.models import F, QuerySet

from accounts.models import Membership, Team, User


def teams_of(user: User) -> QuerySet[Team]:
    """The user's teams, each with `role`: what the user is there."""
    return Team.objects.filter(memberships__user=user).annotate(role=F("memberships__role"))


def members_of(team: Team) -> QuerySet[Membership]:
    return Membership.objects.filter(team=team).select_related("user")
