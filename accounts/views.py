"""People, teams, invitations and keys over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from django.core.exceptions import ValidationError as InvalidValue
from django.db.models import QuerySet
from django.http import Http404
from django.utils.text import slugify
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, status
from rest_framework.exceptions import AuthenticationFailed, NotFound, PermissionDenied, ValidationError
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts import authentication, mail, second_factor, selectors, services, signing_in
from accounts.idempotency import RetrySafe
from accounts.models import ApiKey, Invitation, Membership, Role, Scope, Team, User
from accounts.permissions import reaches
from accounts.scoping import TeamInPath, TeamScoped
from accounts.serializers import (
    AcceptSerializer,
    ApiKeyMadeSerializer,
    ApiKeySerializer,
    CredentialsSerializer,
    InvitationSerializer,
    InvitedSerializer,
    MemberSerializer,
    MeSerializer,
    PasswordSerializer,
    RefreshSerializer,
    TeamChangeSerializer,
    TeamSerializer,
    TokensSerializer,
)
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock

TEAMS_SHOWN = 200  # on /me/, which has no pages; /teams/ has


@contextmanager
def _answered() -> Iterator[None]:
    """What services refuse, as the API says it."""
    try:
        yield
    except services.RoleTooLow as refusal:
        raise PermissionDenied(str(refusal)) from None
    except (services.LastOwner, services.AlreadyThere) as refusal:
        raise Conflict(str(refusal)) from None
    except (Membership.DoesNotExist, Invitation.DoesNotExist):
        raise Http404 from None  # gone since it was looked up


class _AtTheDoor(GenericAPIView):
    # Nobody is in yet. An access token sent along is not looked at: it may be the stale one.
    authentication_classes = ()
    permission_classes = [AllowAny]

    def get_authenticate_header(self, request: Request) -> str:
        return authentication.CHALLENGE  # without it DRF turns every 401 into a 403

    def given(self) -> dict[str, str]:
        serializer = self.get_serializer(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data


class LoginView(_AtTheDoor):
    serializer_class = CredentialsSerializer
    throttle_scope = "sign-in"

    @extend_schema(summary="Log in", responses=TokensSerializer)
    def post(self, request: Request) -> Response:
        given = self.given()
        user = authenticate(request, username=given["email"].lower(), password=given["password"])
        if user is None:
            raise AuthenticationFailed("No active account has this e-mail address and password.")
        if signing_in.is_unverified(user):
            raise AuthenticationFailed(
                "Verify your e-mail address first: open the link that was mailed to it."
            )
        if second_factor.has_one(user) and not second_factor.code_is_right(user, given.get("code", "")):
            raise AuthenticationFailed(
                "This account has a second factor: its one-time code is needed as `code`."
            )
        update_last_login(User, user)
        return Response(authentication.open_session(user))


class RefreshView(_AtTheDoor):
    serializer_class = RefreshSerializer

    @extend_schema(summary="Spend a refresh token for a new pair", responses=TokensSerializer)
    def post(self, request: Request) -> Response:
        return Response(authentication.renew_session(self.given()["refresh"], read_clock()))


class LogoutView(_AtTheDoor):
    serializer_class = RefreshSerializer

    @extend_schema(summary="End the session a refresh token belongs to", responses={204: None})
    def post(self, request: Request) -> Response:
        authentication.close_session(self.given()["refresh"])
        return Response(status=status.HTTP_204_NO_CONTENT)


class LogoutEverywhereView(GenericAPIView):
    @extend_schema(
        summary="End all your sessions, this one too, and those of browsers",
        request=None,
        responses={204: None},
    )
    def post(self, request: Request) -> Response:
        authentication.close_sessions(authentication.person(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class MeView(GenericAPIView):
    serializer_class = MeSerializer

    @extend_schema(summary="Who you are and which teams you are on")
    def get(self, request: Request) -> Response:
        user = authentication.person(request)
        teams = selectors.teams_of(user).order_by("id")[:TEAMS_SHOWN]
        me = {"id": user.id, "email": user.email, "name": user.name, "teams": teams}
        return Response(self.get_serializer(me).data)


class PasswordView(GenericAPIView):
    serializer_class = PasswordSerializer
    throttle_scope = "sign-in"

    @extend_schema(
        summary="Change your password: all your sessions end, and the answer begins a new one",
        responses=TokensSerializer,
    )
    def post(self, request: Request) -> Response:
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        try:
            user = services.change_password(authentication.person(request), given["old"], given["new"])
        except services.WrongPassword:
            raise ValidationError({"old": "This is not your password."}) from None
        except InvalidValue as weak:
            raise ValidationError({"new": weak.messages}) from None
        return Response(authentication.open_session(user))


class TeamViewSet(RetrySafe, mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet):
    """The teams you are on."""

    queryset = Team.objects.none()
    serializer_class = TeamSerializer
    ordering = "id"

    def get_queryset(self) -> QuerySet[Team]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return selectors.teams_of(authentication.person(self.request))

    @extend_schema(responses={201: TeamSerializer})
    def create(self, request: Request) -> Response:
        """Make a team and be its owner. Superusers alone: what a team may have is counted by team, and who could make
        teams at will would be counted by nothing. Without `slug`, it is made from the name.
        """
        user = authentication.person(request)
        if not user.is_superuser:
            raise PermissionDenied("Teams are made by superusers; ask whoever runs this healthmon.")
        data = request.data
        if isinstance(data, dict) and isinstance(name := data.get("name"), str):
            data = {"slug": slugify(name)[:50]} | data
        asked = self.get_serializer(data=data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        team = services.create_team(given["name"], given["slug"], owner=user, now=read_clock())
        made = self.get_queryset().get(pk=team.pk)
        return Response(self.get_serializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=TeamChangeSerializer, responses=TeamSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Rename it. Takes an admin."""
        team = self.get_object()
        if not reaches(Role(team.role), Role.ADMIN):
            raise PermissionDenied(f"This takes the role {Role.ADMIN}; yours on {team.slug} is {team.role}.")
        asked = TeamChangeSerializer(team, data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        asked.save()
        return Response(self.get_serializer(team).data)


class MembersView(TeamInPath, ListAPIView):
    """Who is on the team."""

    queryset = Membership.objects.none()
    serializer_class = MemberSerializer
    ordering = "id"

    def get_queryset(self) -> QuerySet[Membership]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return selectors.members_of(self.team)


class MemberView(TeamInPath):
    serializer_class = MemberSerializer
    minimum_role = {"delete": Role.VIEWER}  # oneself; the service knows who may remove others

    @extend_schema(summary="Make a member something else", responses=MemberSerializer)
    def patch(self, request: Request, team_id: int, user_id: int) -> Response:
        """Takes an admin; to make an owner, or something else of one, an owner. 409 for the last owner."""
        asked = self.get_serializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        if "role" not in asked.validated_data:
            raise ValidationError({"role": "This field is required."})
        with _answered():
            member = services.set_role(
                self.team,
                user_id,
                Role(asked.validated_data["role"]),
                by=authentication.person(request),
            )
        return Response(self.get_serializer(member).data)

    @extend_schema(
        summary="Remove a member, or leave",
        parameters=[
            OpenApiParameter(
                "keep_keys",
                OpenApiTypes.BOOL,
                default=False,
                description="Leave the API keys that they made here as they are; else they are revoked.",
            )
        ],
        responses={204: None},
    )
    def delete(self, request: Request, team_id: int, user_id: int) -> Response:
        """Takes an admin, for an owner an owner; everybody may leave. 409 for the last owner."""
        keep = request.query_params.get("keep_keys", "false")
        if keep not in ("true", "false"):
            raise ValidationError({"keep_keys": "It is true or false."})
        with _answered():
            services.remove_member(
                self.team,
                user_id,
                by=authentication.person(request),
                now=read_clock(),
                keep_keys=keep == "true",
            )
        return Response(status=status.HTTP_204_NO_CONTENT)


class InvitationsView(TeamInPath, ListAPIView):
    """Who is asked to join and has not answered; expired ones are shown until they are withdrawn or sent again."""

    queryset = Invitation.objects.none()
    serializer_class = InvitationSerializer
    ordering = "id"
    minimum_role = {"get": Role.ADMIN, "head": Role.ADMIN}
    throttle_scopes = {"post": "invitations"}

    def get_queryset(self) -> QuerySet[Invitation]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return selectors.invitations_to(self.team)

    @extend_schema(
        summary="Ask somebody to join", request=InvitationSerializer, responses={201: InvitedSerializer}
    )
    def post(self, request: Request, team_id: int) -> Response:
        """They get a link by mail that works once, for seven days. Where no mail server is configured, the answer has
        the link instead. Takes an admin, for a new owner an owner. 409 for who is on the team or invited already.
        """
        now = read_clock()
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        with _answered():
            invitation, token = services.invite(
                self.team,
                given["email"],
                Role(given["role"]),
                by=authentication.person(request),
                now=now,
            )
        return Response(_invited(invitation, token), status=status.HTTP_201_CREATED)


class _OneInvitation(TeamInPath):
    queryset = Invitation.objects.none()

    def get_queryset(self) -> QuerySet[Invitation]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return selectors.invitations_to(self.team)


class InvitationView(_OneInvitation):
    serializer_class = InvitationSerializer

    @extend_schema(summary="Withdraw an invitation", responses={204: None})
    def delete(self, request: Request, team_id: int, pk: int) -> Response:
        """Its link does not work any more. Takes an admin."""
        self.get_object().delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class ResendView(_OneInvitation):
    serializer_class = InvitedSerializer
    throttle_scope = "invitations"

    @extend_schema(summary="Send an invitation again", request=None, responses=InvitedSerializer)
    def post(self, request: Request, team_id: int, pk: int) -> Response:
        """Another link, for seven days from now; the old one does not work any more."""
        with _answered():
            invitation, token = services.invite_again(
                self.get_object(), by=authentication.person(request), now=read_clock()
            )
        return Response(_invited(invitation, token))


def _invited(invitation: Invitation, token: str) -> dict[str, Any]:
    link = problem = None
    if settings.EMAIL_CONFIGURED:
        try:
            mail.send_invitation(invitation, token, read_clock())
        except mail.MailFailed as failure:
            problem = str(failure)
    else:
        link = mail.invitation_link(token)
    return InvitationSerializer(invitation).data | {"link": link, "mail_problem": problem}


class AcceptView(GenericAPIView):
    serializer_class = AcceptSerializer
    throttle_scope = "sign-in"
    permission_classes = [AllowAny]  # the token says who may; and an access token, if there is one, who it is

    @extend_schema(summary="Accept an invitation", responses={201: TeamSerializer})
    def post(self, request: Request) -> Response:
        """Who has an account logs in first. Who has none chooses a name and a password, and logs in then."""
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        by = authentication.person(request) if request.user else None
        try:
            membership = services.accept(
                given["token"],
                by=by,
                name=given.get("name", ""),
                password=given.get("password", ""),
                now=read_clock(),
            )
        except services.InvitationGone as gone:
            raise NotFound(str(gone)) from None
        except services.SomebodyElse as other:
            raise PermissionDenied(str(other)) from None
        except services.LoginNeeded as needed:
            raise AuthenticationFailed(str(needed)) from None
        except InvalidValue as weak:
            raise ValidationError({"password": weak.messages}) from None
        team = membership.team
        team.role = membership.role
        return Response(TeamSerializer(team).data, status=status.HTTP_201_CREATED)


class ApiKeyViewSet(TeamScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet):
    """The keys of the team's programs, those that are over too. For people alone: a key neither sees nor makes keys."""

    queryset = ApiKey.objects.select_related("created_by")
    serializer_class = ApiKeySerializer
    filter_backends = []
    people_only = True
    minimum_role = dict.fromkeys(["list", "retrieve"], Role.ADMIN)
    ordering = ["-id"]

    def get_serializer_context(self) -> dict:
        return super().get_serializer_context() | {"now": read_clock()}

    @extend_schema(responses={201: ApiKeyMadeSerializer})
    def create(self, request: Request) -> Response:
        """Make a key: `key` is shown in this answer and never again. Takes an admin.

        Scopes: `read`; `incidents` reads, acknowledges, resolves, comments and replays; `write` does all that an admin
        does, but for people, invitations and keys. It belongs to the team and goes on without its maker's account.
        """
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        with _answered():
            key, shown = services.create_key(
                self.team,
                given["name"],
                [Scope(scope) for scope in given["scopes"]],
                by=authentication.person(request),
                now=read_clock(),
                expires_at=given.get("expires_at"),
            )
        return Response(self.get_serializer(key).data | {"key": shown}, status=status.HTTP_201_CREATED)

    def destroy(self, request: Request, pk: str) -> Response:
        """Revoke it, for ever. Its next request is refused; it stays in the list."""
        services.revoke_keys([self.get_object()], read_clock())
        return Response(status=status.HTTP_204_NO_CONTENT)
