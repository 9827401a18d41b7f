"""Which team a request is about. Every view of a team's objects begins with `TeamScoped`."""

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.functional import cached_property
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.permissions import IsAuthenticated

from accounts import selectors
from accounts.authentication import caller, person
from accounts.idempotency import RetrySafe
from accounts.models import ApiKey, Role, Team
from accounts.permissions import RoleAllows, acts_as

# Teams with the caller's `role` on them. Asked at every request, so it is not put together anew at every request.
_MINE = """
    SELECT t.*, m.role FROM accounts_team t JOIN accounts_membership m ON m.team_id = t.id
     WHERE m.user_id = %s {} ORDER BY m.id LIMIT 2
"""


class TeamScoped(RetrySafe):
    """
    A view of one team's objects: `self.team`, `self.role`, and a queryset cut down to the team.

    The team is the one named by the X-Team header (its slug), else the caller's only one. Several teams and
    no header: 400. A team that does not exist or is not the caller's: 404, and nobody can tell which. An API key is
    of one team, and any other is not its.
    """

    permission_classes = [IsAuthenticated, RoleAllows]
    minimum_role: dict[str, Role] = {}  # by action; see RoleAllows for those not named
    people_only = False  # True: no API key gets in, whatever its scopes
    team_path = "team"  # from the model to its team, such as "channel__team"

    @property
    def role(self) -> Role:
        key = self.request.auth
        return acts_as(key) if isinstance(key, ApiKey) else Role(self.team.role)  # type: ignore[attr-defined]

    @cached_property
    def team(self) -> Team:
        user = caller(self.request)
        slug = self.request.headers.get("X-Team")
        if user is None:
            team: Team = self.request.auth.team  # type: ignore[union-attr]
            if slug and slug != team.slug:
                raise NotFound("No such team.")
            return team
        if slug:
            named = list(Team.objects.raw(_MINE.format("AND t.slug = %s"), [user.pk, slug]))
            if not named:
                raise NotFound("No such team.")
            return named[0]
        found = list(Team.objects.raw(_MINE.format(""), [user.pk]))
        if not found:
            raise PermissionDenied("You are on no team yet; ask an owner to add you.")
        if len(found) > 1:
            raise ValidationError("You are on several teams: name one by its slug in the X-Team header.")
        return found[0]

    def get_queryset(self) -> QuerySet:
        queryset = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):  # the schema is drawn without a caller
            return queryset.none()
        return queryset.filter(**{self.team_path: self.team})


class TeamInPath(TeamScoped):
    """A view of the team whose id is in the address, for people alone. A team that is not theirs is a 404."""

    people_only = True

    @cached_property
    def team(self) -> Team:
        return get_object_or_404(selectors.teams_of(person(self.request)), pk=self.kwargs["team_id"])
