from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts import authentication, selectors
from accounts.models import Membership, Team, User
from accounts.serializers import (
    CredentialsSerializer,
    MemberSerializer,
    MeSerializer,
    RefreshSerializer,
    TeamSerializer,
    TokensSerializer,
)

TEAMS_SHOWN = 200  # on /me/, which has no pages; /teams/ has


class _AtTheDoor(GenericAPIView):
    # Nobody is in yet. An access token sent along is not looked at: it may be the stale one.
    authentication_classes = ()
    permission_classes = [AllowAny]

    def get_authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'  # without it DRF turns every 401 into a 403

    def given(self) -> dict[str, str]:
        serializer = self.get_serializer(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data


class LoginView(_AtTheDoor):
    serializer_class = CredentialsSerializer

    @extend_schema(summary="Log in", responses=TokensSerializer)
    def post(self, request: Request) -> Response:
        given = self.given()
        user = authenticate(request, username=given["email"].lower(), password=given["password"])
        if user is None:
            raise AuthenticationFailed("No active account has this e-mail address and password.")
        update_last_login(User, user)
        return Response(authentication.open_session(user))


class RefreshView(_AtTheDoor):
    serializer_class = RefreshSerializer

    @extend_schema(summary="Spend a refresh token for a new pair", responses=TokensSerializer)
    def post(self, request: Request) -> Response:
        return Response(authentication.renew_session(self.given()["refresh"]))


class LogoutView(_AtTheDoor):
    serializer_class = RefreshSerializer

    @extend_schema(summary="End the session a refresh token belongs to", responses={204: None})
    def post(self, request: Request) -> Response:
        authentication.close_session(self.given()["refresh"])
        return Response(status=status.HTTP_204_NO_CONTENT)


class MeView(GenericAPIView):
    serializer_class = MeSerializer

    @extend_schema(summary="Who you are and which teams you are on")
    def get(self, request: Request) -> Response:
        user = authentication.caller(request)
        teams = selectors.teams_of(user).order_by("id")[:TEAMS_SHOWN]
        me = {"id": user.id, "email": user.email, "name": user.name, "teams": teams}
        return Response(self.get_serializer(me).data)


class TeamViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet):
    """The teams you are on."""

    queryset = Team.objects.none()
    serializer_class = TeamSerializer
    ordering = "id"

    def get_queryset(self) -> QuerySet[Team]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return selectors.teams_of(authentication.caller(self.request))


class MembersView(ListAPIView):
    """Who is on the team."""

    queryset = Membership.objects.none()
    serializer_class = MemberSerializer
    ordering = "id"

    def get_queryset(self) -> QuerySet[Membership]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        team = get_object_or_404(
            selectors.teams_of(authentication.caller(self.request)), pk=self.kwargs["team_id"]
        )
        return selectors.members_of(team)
