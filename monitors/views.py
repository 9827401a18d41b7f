"""Monitors over HTTP: parse, one call of a service or selector, translate back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.mixins import CreateModelMixin, ListModelMixin, RetrieveModelMixin, UpdateModelMixin
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from accounts.authentication import caller
from accounts.idempotency import RetrySafe
from accounts.models import Role
from accounts.permissions import SuperusersOnly
from accounts.scoping import TeamScoped
from healthmon.lib import etags
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock
from healthmon.lib.filters import PAGING
from monitors import selectors, services
from monitors.filters import MonitorFilter, ResultFilter
from monitors.models import Monitor, Prober, Region, Result
from monitors.serializers import (
    EXTERNAL_ID,
    BulkDoneSerializer,
    BulkSerializer,
    MonitorSerializer,
    ProberSerializer,
    RecipientsAskedSerializer,
    RecipientSerializer,
    RegionSerializer,
    ResultSerializer,
    UptimeSerializer,
    columns_and_regions,
)
from notifications import selectors as notifications


class MonitorViewSet(TeamScoped, etags.Versioned, ModelViewSet):
    serializer_class = MonitorSerializer
    showing = etags.SHOWING | {"by_external_id"}
    throttle_scopes = {"check": "check-now"}
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

    def lock(self, row: Monitor) -> Monitor | None:
        if isinstance(self.request.data, Mapping) and "external_id" in self.request.data:
            services.lock_team(self.team.pk)  # it comes before the others
        return next(iter(services.locked([row.pk])), None)

    def perform_create(self, serializer: MonitorSerializer) -> None:
        columns, regions = columns_and_regions(serializer.validated_data)
        with _refusals():
            [monitor] = services.create(self.team, [columns], read_clock(), [regions])
        serializer.instance = self._again(monitor)

    def perform_update(self, serializer: MonitorSerializer) -> None:
        with _refusals():
            [monitor] = services.update_many([_change(serializer)], caller(self.request), read_clock())
        serializer.instance = self._again(monitor)

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

    @extend_schema(request=MonitorSerializer, responses={200: MonitorSerializer, 201: MonitorSerializer})
    @action(
        detail=False,
        methods=["put"],
        url_path="by-external-id/(?P<external_id>[^/]+)",
        lookup_field="external_id",  # what OPTIONS looks for
        filter_backends=[],
    )
    def by_external_id(self, request: Request, external_id: str) -> Response:
        """Have a monitor of this name be like that: made (201), or replaced (200), however often it is sent.

        What is not given is the default, not what it was; but one that is paused stays so unless `enabled` is given.
        """
        if not EXTERNAL_ID.fullmatch(external_id):
            raise Http404("No monitor can have this external id.")
        data = request.data
        if isinstance(data, Mapping):
            if data.get("external_id", external_id) != external_id:
                raise ValidationError({"external_id": "It is another one than in the address."})
            data = {**data, "external_id": external_id}
        now = read_clock()
        with transaction.atomic(), _refusals():
            services.lock_team(self.team.pk)
            monitor = next(iter(self._locked(Q(external_id=external_id))), None)
            etags.check(request, monitor)
            etags.check_absent(request, monitor)
            context = self.get_serializer_context() | {"replacing": True}
            serializer = MonitorSerializer(monitor, data=data, context=context)
            serializer.is_valid(raise_exception=True)
            [written] = self._written([serializer], now)
        [shown] = self._shown([self._again(written)])
        return Response(shown, status=200 if monitor else 201)

    def _locked(self, which: Q) -> Sequence[Monitor]:
        """Those of the team's monitors, locked, as they are then."""
        ids = list(self.get_queryset().filter(which).order_by().values_list("pk", flat=True))
        return services.locked(ids) if ids else []

    def _written(self, serializers: Sequence[MonitorSerializer], now: datetime) -> Sequence[Monitor]:
        """This will create those that have no instance and change those that have one, and return them in order."""
        making = [serializer for serializer in serializers if serializer.instance is None]
        parts = [columns_and_regions(serializer.validated_data) for serializer in making]
        made = services.create(self.team, [part[0] for part in parts], now, [part[1] for part in parts])
        changes = [_change(serializer) for serializer in serializers if serializer.instance is not None]
        changed = {}
        if changes:
            changed = {m.pk: m for m in services.update_many(changes, caller(self.request), now)}
        new = iter(made)
        return [changed[s.instance.pk] if s.instance is not None else next(new) for s in serializers]

    @extend_schema(request=BulkSerializer, responses=BulkDoneSerializer)
    @action(detail=False, methods=["post"])
    def bulk(self, request: Request) -> Response:
        """Create, update, upsert and delete up to 1,000 monitors in one transaction: all of it, or none and why.

        A row of `update` is a partial monitor with its `id`, or without one with its `external_id`. A row of `upsert`
        is a whole one with its `external_id`, to be made or replaced. `delete` goes first. Errors point at their row,
        such as `#/create/3/url`.
        """
        asked = BulkSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        rows = asked.validated_data
        context = self.get_serializer_context() | {
            "regions": set(Region.objects.values_list("slug", flat=True))
        }
        now = read_clock()
        with transaction.atomic():
            services.lock_team(self.team.pk)
            judged = Judged(rows, self._locked(_named_in(rows)), context)
            if judged.errors:
                raise ValidationError(judged.errors)
            with _refusals(judged):
                if judged.deleting:
                    services.delete(judged.deleting, caller(request), now)
                written = self._written([*judged.creating, *judged.updating, *judged.upserting], now)
        present = self.get_queryset().filter(id__in=[monitor.pk for monitor in written])
        shown = {row["id"]: row for row in self._shown(list(present))}
        answers = iter([shown[monitor.pk] for monitor in written])
        return Response(
            {
                "created": [next(answers) for _ in judged.creating],
                "updated": [next(answers) for _ in judged.updating],
                "upserted": [next(answers) for _ in judged.upserting],
                "deleted": rows["delete"],
            }
        )

    def get_object_of_team(self) -> Monitor:
        """Like get_object, for actions whose filters are those of something else than monitors."""
        return get_object_or_404(self.get_queryset().only("id"), pk=self.kwargs["pk"])


def _change(serializer: MonitorSerializer) -> services.Change:
    columns = dict(serializer.validated_data)
    regions, enabled = columns.pop("regions", None), columns.pop("enabled", None)
    return services.Change(serializer.instance, columns, regions, enabled)


@contextmanager
def _refusals(judged: "Judged | None" = None) -> Iterator[None]:
    """This will say what services refuse as the API does: of a bulk, by row."""
    try:
        yield
    except services.QuotaReached as full:
        raise PermissionDenied(str(full)) from None
    except services.ExternalIdTaken as taken:
        errors: Any = {"external_id": "Another monitor of the team has it."}
        raise ValidationError(judged.taken(taken.taken) if judged else errors) from None
    except Monitor.DoesNotExist:
        raise Http404("It was deleted a moment ago.") from None


def _named_in(rows: Mapping[str, list]) -> Q:
    """Monitors that the rows of a bulk are about, by id or by external id."""
    ids = [row["id"] for row in rows["update"] if _is_id(row.get("id"))] + rows["delete"]
    names = [row.get("external_id") for row in rows["update"] + rows["upsert"]]
    # Only what could be one: a NUL is no text to the database, and a list no text at all.
    return Q(id__in=ids) | Q(external_id__in=[name for name in names if _is_external_id(name)])


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31  # true is 1 to isinstance


def _is_external_id(value: Any) -> bool:
    return isinstance(value, str) and EXTERNAL_ID.fullmatch(value) is not None


class Judged:
    """The rows of a bulk as serializers, with the errors by list, row and field.

    known: the monitors that the rows name, locked.
    """

    def __init__(self, rows: Mapping[str, list], known: Sequence[Monitor], context: dict[str, Any]) -> None:
        self._by_id = {monitor.pk: monitor for monitor in known}
        self._by_name = {monitor.external_id: monitor for monitor in known if monitor.external_id}
        self._seen: set[Any] = set()
        self.errors: dict[str, dict[int, Any]] = {}
        self.creating = [
            self._valid("create", n, MonitorSerializer(data=row, context=context))
            for n, row in enumerate(rows["create"])
        ]
        self.updating = []
        for n, row in enumerate(rows["update"]):
            monitor = self._by_id.get(row["id"]) if _is_id(row.get("id")) else None
            if "id" not in row and _is_external_id(row.get("external_id")):
                monitor = self._by_name.get(row["external_id"])
            if monitor is None or not self._once(monitor.pk):
                what = "The id, or the external_id, of a monitor of this team is needed, each once."
                self._wrong("update", n, {"id": what})
                continue
            serializer = MonitorSerializer(monitor, data=row, partial=True, context=context)
            self.updating.append(self._valid("update", n, serializer))
        self.upserting = []
        for n, row in enumerate(rows["upsert"]):
            name = row.get("external_id")
            monitor = self._by_name.get(name) if _is_external_id(name) else None
            if not isinstance(name, str) or not self._once(monitor.pk if monitor else name):
                self._wrong("upsert", n, {"external_id": "An external_id is needed, each once."})
                continue
            serializer = MonitorSerializer(monitor, data=row, context=context | {"replacing": True})
            self.upserting.append(self._valid("upsert", n, serializer))
        for n, monitor_id in enumerate(rows["delete"]):
            if monitor_id not in self._by_id or not self._once(monitor_id):
                self._wrong("delete", n, "The id of a monitor of this team is needed, each once.")
        self.deleting = [self._by_id[pk] for pk in rows["delete"] if pk in self._by_id]

    def taken(self, names: Collection[str]) -> dict[str, dict[int, Any]]:
        """This will return errors for those rows that ask for an external id that another monitor has."""
        lists = {"create": self.creating, "update": self.updating, "upsert": self.upserting}
        found: dict[str, dict[int, Any]] = {}
        for which, serializers in lists.items():
            for n, serializer in enumerate(serializers):
                name = serializer.validated_data.get("external_id")
                own = getattr(serializer.instance, "external_id", None)
                if name in names and name != own:
                    found.setdefault(which, {})[n] = {"external_id": "Another monitor of the team has it."}
        return found

    def _once(self, what: Any) -> bool:
        again = what in self._seen
        self._seen.add(what)
        return not again

    def _valid(self, which: str, n: int, serializer: MonitorSerializer) -> MonitorSerializer:
        if not serializer.is_valid():
            self._wrong(which, n, serializer.errors)
        return serializer

    def _wrong(self, which: str, n: int, error: Any) -> None:
        self.errors.setdefault(which, {})[n] = error


class RegionViewSet(
    RetrySafe, CreateModelMixin, ListModelMixin, RetrieveModelMixin, UpdateModelMixin, GenericViewSet
):
    """Where probers stand; the same for every team. Superusers make and change them; what is over is disabled, for its
    results stay."""

    queryset = Region.objects.all()
    serializer_class = RegionSerializer
    http_method_names = ["get", "post", "patch", "head", "options"]
    filter_backends = []
    ordering = ["id"]

    def get_permissions(self) -> list[BasePermission]:
        # Keys may look, too, whatever their scopes.
        return [IsAuthenticated() if self.request.method in SAFE_METHODS else SuperusersOnly()]


class ProberViewSet(ListModelMixin, GenericViewSet):
    """The prober processes that have been heard of. For superusers."""

    queryset = Prober.objects.all()
    serializer_class = ProberSerializer
    permission_classes = [SuperusersOnly]
    filter_backends = []
    ordering = ["-seen_at", "-id"]
