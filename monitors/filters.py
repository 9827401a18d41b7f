"""What lists of monitors and results can be cut down to."""

from typing import ClassVar

import django_filters as filters
from django.db.models import F, Q, QuerySet

from healthmon.lib.filters import Containing
from monitors.models import Monitor, Result
from monitors.probing import PROBES
from monitors.state import Status
from notifications.messages import SEVERITIES


class MonitorFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=[(str(s), str(s)) for s in Status])
    tag = filters.CharFilter(method="with_tag", help_text="Monitors that carry this tag.")
    kind = filters.ChoiceFilter(choices=[(kind, kind) for kind in PROBES])
    severity = filters.MultipleChoiceFilter(choices=[(severity, severity) for severity in SEVERITIES])
    external_id = filters.CharFilter(help_text="The one that has it.")
    search = filters.CharFilter(method="naming", help_text="Part of the name or the URL.")
    ordering = filters.OrderingFilter(
        fields=["id", "name", "status", "status_changed_at", "created_at", "interval_seconds"]
    )

    class Meta:
        model = Monitor
        fields: ClassVar = []

    def with_tag(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return queryset.filter(tags__contains=[value])

    def naming(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return queryset.filter(Q(Containing(F("name"), value)) | Q(Containing(F("url"), value)))


class ResultFilter(filters.FilterSet):
    since = filters.IsoDateTimeFilter(field_name="scheduled_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="scheduled_at", lookup_expr="lt")
    region = filters.CharFilter(field_name="region__slug")

    class Meta:
        model = Result
        fields: ClassVar = []
