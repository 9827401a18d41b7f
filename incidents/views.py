"""Incidents over HTTP. They are opened by status changes; people acknowledge, resolve and comment."""

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.authentication import caller
from accounts.models import Role
from accounts.scoping import TeamScoped
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock
from incidents import services
from incidents.filters import IncidentFilter
from incidents.models import Incident
from incidents.serializers import (
    CommentSerializer,
    EventSerializer,
    ExplanationSerializer,
    IncidentSerializer,
)


class IncidentViewSet(TeamScoped, ReadOnlyModelViewSet):
    serializer_class = IncidentSerializer
    filterset_class = IncidentFilter
    ordering = ["-opened_at", "-id"]
    minimum_role = dict.fromkeys(["acknowledge", "resolve", "comment"], Role.RESPONDER)
    queryset = Incident.objects.select_related("acknowledged_by").defer("evidence")

    @extend_schema(request=None, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Say that somebody is on it. 409 if it is resolved."""
        return self._after(services.acknowledge)

    @extend_schema(request=None, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """Close it by hand. 409 if it is resolved."""
        return self._after(services.resolve)

    def _after(self, deed) -> Response:
        try:
            incident = deed(self.get_object(), caller(self.request), read_clock())
        except services.IncidentClosed as closed:
            raise Conflict(str(closed)) from None
        return Response(self.get_serializer(incident).data)

    @extend_schema(request=CommentSerializer, responses={201: EventSerializer})
    @action(detail=True, methods=["post"])
    def comment(self, request: Request, pk: str) -> Response:
        """Add a line to its timeline."""
        said = CommentSerializer(data=request.data)
        said.is_valid(raise_exception=True)
        event = services.comment(
            self.get_object(), caller(request), said.validated_data["text"], read_clock()
        )
        return Response(EventSerializer(event).data, status=201)

    @extend_schema(responses=EventSerializer(many=True), filters=False)
    @action(detail=True, filter_backends=[], ordering=["at", "id"])
    def timeline(self, request: Request, pk: str) -> Response:
        """What happened, oldest first."""
        page = self.paginate_queryset(self.get_object().events.select_related("by").order_by("at", "id"))
        return self.get_paginated_response(EventSerializer(page, many=True).data)

    @extend_schema(responses=ExplanationSerializer)
    @action(detail=True, filter_backends=[], pagination_class=None)
    def explain(self, request: Request, pk: str) -> Response:
        """Why it was opened."""
        return Response(ExplanationSerializer(self.get_object()).data)
