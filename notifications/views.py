"""Channels, subscriptions, templates and deliveries over HTTP."""

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet, ReadOnlyModelViewSet

from accounts.models import Role
from accounts.scoping import TeamScoped
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock
from healthmon.lib.etags import Versioned
from notifications import services
from notifications.filters import DeliveryFilter
from notifications.models import Channel, Delivery, MessageTemplate, Subscription
from notifications.serializers import (
    ChannelCreatedSerializer,
    ChannelSerializer,
    DeliverySerializer,
    DeliveryShownSerializer,
    MessageTemplateSerializer,
    ReplayedSerializer,
    SubscriptionSerializer,
)


class ChannelViewSet(TeamScoped, Versioned, ModelViewSet):
    queryset = Channel.objects.all()
    serializer_class = ChannelSerializer
    throttle_scopes = {"test": "tests"}
    http_method_names = ["get", "post", "put", "patch", "delete", "head", "options"]
    filter_backends = []

    @extend_schema(responses={201: ChannelCreatedSerializer})
    def create(self, request: Request) -> Response:
        """Make a channel. Its secrets are shown in this answer and never again, also one that was made for it.

        What `gather_seconds` and `rate_per_minute` are not said to be suits its kind: people hear of what happens
        within 3 seconds in one message, machines of each event by itself.
        """
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        channel, secrets = services.create_channel(
            self.team,
            given["name"],
            given["kind"],
            given["config"],
            given.get("enabled", True),
            read_clock(),
            **{name: given[name] for name in services.HABITS if name in given},
        )
        answer = self.get_serializer(channel).data | {"config": channel.config | secrets}
        return Response(answer, status=status.HTTP_201_CREATED)

    def perform_update(self, serializer: ChannelSerializer) -> None:
        try:
            serializer.instance = services.update_channel(
                serializer.instance, serializer.validated_data, read_clock()
            )
        except services.ChannelOfOwners as kept:
            raise Conflict(str(kept)) from None

    def perform_destroy(self, instance: Channel) -> None:
        try:
            services.delete_channel(instance)
        except services.ChannelOfOwners as kept:
            raise Conflict(str(kept)) from None

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Send a test by the way that alerts take; the answer is the delivery to watch."""
        delivery = services.test(self.get_object(), read_clock())
        return Response(DeliverySerializer(delivery).data, status=status.HTTP_202_ACCEPTED)


class SubscriptionViewSet(TeamScoped, Versioned, ModelViewSet):
    queryset = Subscription.objects.all()
    serializer_class = SubscriptionSerializer
    team_path = "channel__team"
    http_method_names = ["get", "post", "put", "patch", "delete", "head", "options"]
    filter_backends = []

    def get_serializer_context(self) -> dict:
        context = super().get_serializer_context()
        if not getattr(self, "swagger_fake_view", False):
            context["team"] = self.team
        return context

    def perform_create(self, serializer: SubscriptionSerializer) -> None:
        self._save(serializer)

    def perform_update(self, serializer: SubscriptionSerializer) -> None:
        self._save(serializer)

    def _save(self, serializer: SubscriptionSerializer) -> None:
        try:
            with transaction.atomic():
                services.subscribed(serializer.save(), read_clock())
        except IntegrityError:
            raise Conflict("Somebody else wrote the same at the same moment; look again.") from None


class MessageTemplateViewSet(TeamScoped, Versioned, ModelViewSet):
    """A team's own words for a kind of message; what is empty is worded by healthmon."""

    queryset = MessageTemplate.objects.all()
    serializer_class = MessageTemplateSerializer
    http_method_names = ["get", "post", "put", "patch", "delete", "head", "options"]
    filter_backends = []

    def get_serializer_context(self) -> dict:
        context = super().get_serializer_context()
        if not getattr(self, "swagger_fake_view", False):
            context["team"] = self.team
        return context

    def perform_create(self, serializer: MessageTemplateSerializer) -> None:
        self._set(serializer, MessageTemplate(team=self.team))

    def perform_update(self, serializer: MessageTemplateSerializer) -> None:
        self._set(serializer, serializer.instance)

    def _set(self, serializer: MessageTemplateSerializer, template: MessageTemplate) -> None:
        try:
            with transaction.atomic():
                serializer.instance = services.set_template(template, serializer.validated_data, read_clock())
        except IntegrityError:
            raise Conflict("Somebody else wrote the same at the same moment; look again.") from None


class DeliveryViewSet(TeamScoped, ReadOnlyModelViewSet):
    queryset = Delivery.objects.select_related("message", "channel")
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
    team_path = "channel__team"
    minimum_role = {"replay": Role.RESPONDER, "replay_all": Role.RESPONDER}

    @extend_schema(responses=DeliveryShownSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """One delivery, with its tries: when, how long, and what came back."""
        return Response(DeliveryShownSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=DeliverySerializer)
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Try a dead delivery again, with the same key. 409 if it is not dead."""
        if not services.replay(self._one(), read_clock()):
            raise Conflict("Only a dead delivery can be replayed.")
        return Response(self.get_serializer(self.get_object()).data)

    def _one(self) -> QuerySet[Delivery]:
        return Delivery.objects.filter(pk=self.get_object().pk)

    @extend_schema(
        request=None, responses=ReplayedSerializer, operation_id="deliveries_replay_filtered", filters=True
    )
    @action(detail=False, methods=["post"], url_path="replay")
    def replay_all(self, request: Request) -> Response:
        """Try again all dead deliveries that the filters leave."""
        ids = self.filter_queryset(self.get_queryset()).values("pk")
        return Response({"replayed": services.replay(Delivery.objects.filter(pk__in=ids), read_clock())})
