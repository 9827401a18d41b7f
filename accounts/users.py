"""Accounts over HTTP, for superusers: what the console's page of users is to a browser."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as InvalidValue
from django.db.models import Exists, OuterRef, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts import second_factor, services
from accounts.filters import UserFilter
from accounts.idempotency import RetrySafe
from accounts.models import User
from accounts.permissions import SuperusersOnly
from healthmon.lib.api import Conflict, StrictModelSerializer, one_line
from healthmon.lib.clock import now as read_clock


class UserSerializer(StrictModelSerializer):
    name = serializers.CharField(max_length=100, required=False, allow_blank=True, validators=[one_line])
    password = serializers.CharField(
        max_length=1_000,
        write_only=True,
        required=False,
        trim_whitespace=False,
        style={"input_type": "password"},
        help_text="Without one the account cannot sign in with a password until one is set or reset by mail.",
    )
    second_factor = serializers.BooleanField(read_only=True, help_text="Whether they have set one up.")

    class Meta:
        model = User
        fields = [
            "id", "email", "name", "password", "is_active", "is_staff", "is_superuser", "second_factor",
            "last_login", "date_joined",
        ]  # fmt: skip
        read_only_fields = ["last_login", "date_joined"]

    def validate_email(self, email: str) -> str:
        email = email.lower()
        if email != getattr(self.instance, "email", "") and User.objects.filter(email=email).exists():
            raise serializers.ValidationError("Another account has this address.")
        return email

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "password" in attrs:
            known = {name: attrs.get(name, getattr(self.instance, name, "")) for name in ("email", "name")}
            try:
                validate_password(attrs["password"], User(**known))
            except InvalidValue as weak:
                raise serializers.ValidationError({"password": weak.messages}) from None
        return attrs


class UserViewSet(RetrySafe, ListModelMixin, RetrieveModelMixin, GenericViewSet):
    """Everybody who has an account here, whatever their teams. For superusers."""

    queryset = User.objects.all()
    serializer_class = UserSerializer
    filterset_class = UserFilter
    permission_classes = [SuperusersOnly]
    ordering = ["id"]

    def get_queryset(self) -> QuerySet[User]:
        factors = second_factor.of_users(OuterRef("pk"))
        return super().get_queryset().annotate(second_factor=Exists(factors))

    @extend_schema(responses={201: UserSerializer})
    def create(self, request: Request) -> Response:
        """Make an account. Teams are joined by invitation, or named by their owners."""
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            user = services.create_user(asked.validated_data, read_clock())
        except services.AddressTaken as taken:
            raise ValidationError({"email": str(taken)}) from None
        return Response(self._shown(user), status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change an account. Whoever is deactivated, or given a new password, is logged out everywhere at once. 409 for
        taking the last superuser away.
        """
        user = self.get_object()
        asked = self.get_serializer(user, data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        try:
            user = services.change_user(user, asked.validated_data)
        except services.AddressTaken as taken:
            raise ValidationError({"email": str(taken)}) from None
        except services.LastSuperuser as last:
            raise Conflict(str(last)) from None
        return Response(self._shown(user))

    @extend_schema(request=None, responses=UserSerializer)
    @action(detail=True, methods=["post"], url_path="take-second-factors-away")
    def take_second_factors_away(self, request: Request, pk: str) -> Response:
        """For somebody who has lost theirs. They are logged out everywhere: be sure that it is they who ask."""
        user = self.get_object()
        services.take_second_factors_away(user)
        return Response(self._shown(user))

    def _shown(self, user: User) -> dict[str, Any]:
        return self.get_serializer(self.get_queryset().get(pk=user.pk)).data
