"""Which team a request is about. Every view of a team's objects begins with `TeamScoped`."""

from django.db.models import QuerySet
from django.utils.functional import cached_property
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import IsAuthenticated

from accounts.authentication import caller
from accounts.models import Membership, Role, Team
from accounts.permissions import RoleAllows


class TeamScoped(GenericAPIView):
    """
    A view of one team's objects: `self.team`, `self.role`, and a queryset cut down to the team.

    The team is the one named by the X-Team header (its slug), else the caller's only one. Several teams and
    no header: 400. A team that does not exist or is not the caller's: 404, and nobody can tell which.
    """

    permission_classes = [IsAuthenticated, RoleAllows]
    minimum_role: dict[str, Role] = {}  # by action; see RoleAllows for those not named
    team_path = "team"  # from the model to its team, such as "channel__team"

    @property
    def team(self) -> Team:
        return self._membership.team

    @property
    def role(self) -> Role:
        return Role(self._membership.role)

    @cached_property
    def _membership(self) -> Membership:
        mine = Membership.objects.select_related("team").filter(user=caller(self.request)).order_by("id")
        slug = self.request.headers.get("X-Team")
        if slug:
            named = mine.filter(team__slug=slug).first()
            if named is None:
                raise NotFound("No such team.")
            return named
        found = list(mine[:2])
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
