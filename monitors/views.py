"""Monitors over HTTP: parse, one call of a service or selector, translate back."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import F
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from accounts.authentication import caller
from accounts.models import Role
from accounts.scoping import TeamScoped
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock
from healthmon.lib.filters import PAGING
from monitors import selectors, services
from monitors.filters import MonitorFilter, ResultFilter
from monitors.models import Monitor, Region, Result
from monitors.serializers import (
    BulkDoneSerializer,
    BulkSerializer,
    MonitorSerializer,
    RecipientsAskedSerializer,
    RecipientSerializer,
    RegionSerializer,
    ResultSerializer,
    UptimeSerializer,
    columns_and_regions,
)
from notifications import selectors as notifications


class MonitorViewSet(TeamScoped, ModelViewSet):
    serializer_class = MonitorSerializer
    filterset_class = MonitorFilter
    http_method_names = ["get", "post", "put", "patch", "delete", "head", "options"]
    ordering = ["-id"]
    minimum_role = {"check": Role.RESPONDER}
    queryset = Monitor.objects.all()

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self._shown(page))

    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(self._shown([self.get_object()])[0])

    def _shown(self, monitors: Sequence[Monitor]) -> Sequence[dict[str, Any]]:
        return self.get_serializer(selectors.glimpsed(monitors, read_clock()), many=True).data

    def _again(self, monitor: Monitor) -> Monitor:
        """As it is in the database after a change."""
        return selectors.glimpsed([self.get_queryset().get(pk=monitor.pk)], read_clock())[0]

    def perform_create(self, serializer: MonitorSerializer) -> None:
        columns, regions = columns_and_regions(serializer.validated_data)
        [monitor] = services.create(self.team, [columns], read_clock(), [regions])
        serializer.instance = self._again(monitor)

    def perform_update(self, serializer: MonitorSerializer) -> None:
        monitor = self._change(serializer)
        serializer.instance = self._again(monitor)

    def _change(self, serializer: MonitorSerializer) -> Monitor:
        now = read_clock()
        columns = dict(serializer.validated_data)
        regions = columns.pop("regions", None)
        enabled = columns.pop("enabled", None)
        with transaction.atomic():
            try:
                monitor = services.update(serializer.instance, columns, now, regions)
            except Monitor.DoesNotExist:
                raise Http404 from None  # deleted since it was looked up
            if enabled is True:
                services.resume([monitor], now)
            elif enabled is False:
                services.pause([monitor], caller(self.request), now)
        return monitor

    def perform_destroy(self, instance: Monitor) -> None:
        services.delete([instance], caller(self.request), read_clock())

    @extend_schema(request=None, responses=MonitorSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Stop probing it and resolve its incident. Pausing what is paused changes nothing."""
        services.pause([self.get_object()], caller(request), read_clock())
        return Response(self._shown([self.get_object()])[0])

    @extend_schema(request=None, responses=MonitorSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Probe it again, from a clean state."""
        services.resume([self.get_object()], read_clock())
        return Response(self._shown([self.get_object()])[0])

    @extend_schema(request=None, responses={202: MonitorSerializer})
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        """Probe it within two seconds, out of turn. 409 if it is paused."""
        try:
            services.check_now([self.get_object()], read_clock())
        except services.MonitorPaused as paused:
            raise Conflict(str(paused)) from None
        return Response(self._shown([self.get_object()])[0], status=status.HTTP_202_ACCEPTED)

    @extend_schema(
        responses=ResultSerializer(many=True),
        filters=False,  # the schema would look for them on monitors
        parameters=[
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="Scheduled then or later."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Scheduled before that."),
            OpenApiParameter("region", OpenApiTypes.STR, description="Slug of a region."),
        ],
    )
    @action(detail=True, filterset_class=ResultFilter, ordering=["-scheduled_at", "-region"])
    def results(self, request: Request, pk: str) -> Response:
        """What was seen, newest first."""
        monitor = self.get_object_of_team()
        seen = Result.objects.filter(monitor=monitor).annotate(region_slug=F("region__slug"))
        results = self.filter_queryset(seen)
        page = self.paginate_queryset(results)
        return self.get_paginated_response(ResultSerializer(page, many=True).data)

    @extend_schema(
        responses=UptimeSerializer,
        parameters=[OpenApiParameter("window", OpenApiTypes.STR, enum=[*selectors.WINDOWS], default="24h")],
        filters=False,
    )
    @action(detail=True, filter_backends=[], pagination_class=None)
    def uptime(self, request: Request, pk: str) -> Response:
        """How much of a window it was up, and how much of it we looked."""
        window = request.query_params.get("window", "24h")
        if window not in selectors.WINDOWS:
            raise ValidationError({"window": f"One of {', '.join(selectors.WINDOWS)} is needed."})
        uptime = selectors.uptime(self.get_object_of_team(), window, read_clock())
        return Response(UptimeSerializer(uptime).data)

    @extend_schema(
        responses=RecipientSerializer(many=True),
        parameters=[RecipientsAskedSerializer],
        filters=False,
    )
    @action(detail=True, filter_backends=[], ordering=["id"])
    def recipients(self, request: Request, pk: str) -> Response:
        """Who would be told of a message about it, and why: every channel of the team, told or not.

        Who was told that it is down is told that it is up, too, whatever a preview of `resolved` says.
        """
        monitor, query = self.get_object(), request.query_params
        asked = RecipientsAskedSerializer(data={name: query[name] for name in query if name not in PAGING})
        asked.is_valid(raise_exception=True)
        kind, at = asked.validated_data["kind"], asked.validated_data.get("at") or read_clock()
        channels = self.paginate_queryset(notifications.channels(self.team.id))
        found = notifications.recipients(selectors.message_about(monitor, kind, at), channels)
        return self.get_paginated_response(RecipientSerializer(found, many=True).data)

    @extend_schema(request=BulkSerializer, responses=BulkDoneSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Request) -> Response:
        """Create, update and delete up to 1,000 monitors in one transaction: all of it, or none and why.

        A row of `update` is a partial monitor with its `id`. Errors point at their row, such as `#/create/3/url`.
        """
        asked = BulkSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        rows = asked.validated_data
        known = {
            monitor.id: monitor
            for monitor in self.get_queryset().filter(
                id__in=[row["id"] for row in rows["update"] if type(row.get("id")) is int] + rows["delete"]
            )
        }
        context = self.get_serializer_context() | {
            "regions": set(Region.objects.values_list("slug", flat=True))
        }
        creating, updating, errors = _judged(rows, known, context)
        if errors:
            raise ValidationError(errors)
        now = read_clock()
        with transaction.atomic():
            parts = [columns_and_regions(serializer.validated_data) for serializer in creating]
            created = services.create(
                self.team, [part[0] for part in parts], now, [part[1] for part in parts]
            )
            updated = [self._change(serializer) for serializer in updating]
            services.delete([known[monitor_id] for monitor_id in rows["delete"]], caller(request), now)
        written = self.get_queryset().filter(id__in=[monitor.id for monitor in created + updated])
        shown = {row["id"]: row for row in self._shown(list(written))}
        return Response(
            {
                "created": [shown[monitor.id] for monitor in created],
                "updated": [shown[monitor.id] for monitor in updated],
                "deleted": rows["delete"],
            }
        )

    def get_object_of_team(self) -> Monitor:
        """Like get_object, for actions whose filters are those of something else than monitors."""
        return get_object_or_404(self.get_queryset().only("id"), pk=self.kwargs["pk"])


def _judged(rows: Mapping[str, list], known: Mapping[int, Monitor], context: dict) -> tuple[list, list, dict]:
    """This will return serializers of what to create and to update, and the errors by list, row and field."""
    creating = [MonitorSerializer(data=row, context=context) for row in rows["create"]]
    errors: dict[str, dict[int, Any]] = {"create": {}, "update": {}, "delete": {}}
    for index, serializer in enumerate(creating):
        if not serializer.is_valid():
            errors["create"][index] = serializer.errors
    updating = []
    seen: set[int] = set()
    for index, row in enumerate(rows["update"]):
        monitor = known.get(row["id"]) if type(row.get("id")) is int else None  # true is 1 to isinstance
        if monitor is None or monitor.id in seen:
            errors["update"][index] = {"id": "The id of a monitor of this team is needed, each once."}
            continue
        seen.add(monitor.id)
        serializer = MonitorSerializer(monitor, data=row, partial=True, context=context)
        if serializer.is_valid():
            updating.append(serializer)
        else:
            errors["update"][index] = serializer.errors
    for index, monitor_id in enumerate(rows["delete"]):
        if monitor_id not in known or monitor_id in seen:
            errors["delete"][index] = "The id of a monitor of this team is needed, each once."
        seen.add(monitor_id)
    return creating, updating, {name: found for name, found in errors.items() if found}


class RegionViewSet(ListModelMixin, GenericViewSet):
    """Where probers stand; the same for every team."""

    queryset = Region.objects.all()
    serializer_class = RegionSerializer
    filter_backends = []
