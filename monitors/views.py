"""Monitors over HTTP: parse, one call of a service or selector, translate back."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Prefetch, QuerySet
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
from monitors import selectors, services
from monitors.filters import MonitorFilter, ResultFilter
from monitors.models import Monitor, Region, RegionState, Result
from monitors.serializers import (
    BulkDoneSerializer,
    BulkSerializer,
    MonitorSerializer,
    RegionSerializer,
    ResultSerializer,
    UptimeSerializer,
    columns_and_regions,
)


class MonitorViewSet(TeamScoped, ModelViewSet):
    serializer_class = MonitorSerializer
    filterset_class = MonitorFilter
    http_method_names = ["get", "post", "put", "patch", "delete", "head", "options"]
    ordering = ["-id"]
    minimum_role = {"check": Role.RESPONDER}
    queryset = Monitor.objects.prefetch_related(
        Prefetch("states", RegionState.objects.select_related("region"))
    )

    def get_queryset(self) -> QuerySet[Monitor]:
        return selectors.with_newest_result(super().get_queryset(), read_clock())

    def perform_create(self, serializer: MonitorSerializer) -> None:
        columns, regions = columns_and_regions(serializer.validated_data)
        [monitor] = services.create(self.team, [columns], read_clock(), [regions])
        serializer.instance = self.get_queryset().get(pk=monitor.pk)

    def perform_update(self, serializer: MonitorSerializer) -> None:
        monitor = self._change(serializer)
        serializer.instance = self.get_queryset().get(pk=monitor.pk)

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
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=None, responses=MonitorSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Probe it again, from a clean state."""
        services.resume([self.get_object()], read_clock())
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=None, responses={202: MonitorSerializer})
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        """Probe it within two seconds, out of turn. 409 if it is paused."""
        try:
            services.check_now([self.get_object()], read_clock())
        except services.MonitorPaused as paused:
            raise Conflict(str(paused)) from None
        return Response(self.get_serializer(self.get_object()).data, status=status.HTTP_202_ACCEPTED)

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
        results = self.filter_queryset(Result.objects.filter(monitor=monitor).select_related("region"))
        page = self.paginate_queryset(results)
        return self.get_paginated_response(ResultSerializer(page, many=True).data)

    @extend_schema(
        responses=UptimeSerializer,
        parameters=[
            OpenApiParameter("window", OpenApiTypes.STR, enum=list(selectors.WINDOWS), default="24h")
        ],
        filters=False,
    )
    @action(detail=True, filter_backends=[], pagination_class=None)
    def uptime(self, request: Request, pk: str) -> Response:
        """How much of a window it was up, and how much of it we looked."""
        window = request.query_params.get("window", "24h")
        if window not in selectors.WINDOWS:
            raise ValidationError({"window": f"One of {', '.join(selectors.WINDOWS)} is needed."})
        uptime = selectors.uptime(self.get_object(), window, read_clock())
        return Response(UptimeSerializer(uptime).data)

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
        shown = {
            monitor.id: monitor
            for monitor in self.get_queryset().filter(id__in=[m.id for m in created + updated])
        }
        return Response(
            {
                "created": self.get_serializer([shown[monitor.id] for monitor in created], many=True).data,
                "updated": self.get_serializer([shown[monitor.id] for monitor in updated], many=True).data,
                "deleted": rows["delete"],
            }
        )

    def get_object_of_team(self) -> Monitor:
        """Like get_object, for actions whose filters are those of something else than monitors."""
        return get_object_or_404(self.get_queryset(), pk=self.kwargs["pk"])


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
