"""Incidents over HTTP. They are opened by status changes; people acknowledge, resolve and comment.

And the page behind the signed link of a message, which acknowledges without logging in.
"""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.authentication import caller, via
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
from notifications import links, selectors


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
            incident = deed(self.get_object(), caller(self.request), read_clock(), via(self.request))
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
            self.get_object(), caller(request), said.validated_data["text"], read_clock(), via(request)
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


# --- the signed link of a message -----------------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def acknowledge_by_link(request: HttpRequest, token: str) -> HttpResponse:
    """This will name the incidents of a link and ask; the POST of its button acknowledges those that are open.

    A GET changes nothing: programs that look for bad links follow every one that comes by mail.
    """
    now = read_clock()
    try:
        asked = links.read_acknowledge(token, now)
    except links.LinkExpired:
        return _page(
            request, "This link is too old", "It worked for seven days. The console still does.", 410
        )
    except links.LinkInvalid:
        return _page(request, "This link does not work", "Was it copied as a whole?", 404)
    channel = selectors.channel_name(asked.channel_id) if asked.channel_id else ""
    incidents = list(Incident.objects.filter(id__in=asked.incident_ids).order_by("id"))
    if channel is None or not incidents:
        return _page(request, "This link does not work any more", "What it was made for was deleted.", 404)
    if request.method == "POST":
        via = f"link sent to {channel}" if channel else "link"
        incidents = services.acknowledge_open(asked.incident_ids, now, via)
    count = sum(incident.status == Incident.Status.OPEN for incident in incidents)
    if count:
        title = "Acknowledge this incident?" if count == 1 else f"Acknowledge {count} incidents?"
        sentence = "Those who were told of it hear that somebody is on it, and nobody is reminded any more."
    elif any(incident.status == Incident.Status.ACKNOWLEDGED for incident in incidents):
        title, sentence = "Acknowledged", "Those who were told of it know that somebody is on it."
    else:
        title, sentence = "Nothing left to acknowledge", "It is resolved already."
    return _page(request, title, sentence, incidents=incidents, count=count)


def _page(
    request: HttpRequest,
    title: str,
    sentence: str,
    status: int = 200,
    incidents: Sequence[Incident] = (),
    count: int = 0,
) -> HttpResponse:
    page = render(
        request,
        "incidents/acknowledge.html",
        {"title": title, "sentence": sentence, "incidents": incidents, "open": count},
        status=status,
    )
    page["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    page["X-Robots-Tag"] = "noindex, nofollow"
    return page
