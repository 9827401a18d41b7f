"""Incidents in the console: why, since when, and what was said."""

import json

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.decorators import action, display

from accounts.console import TeamInline, TeamRows
from healthmon.lib.clock import now as read_clock
from healthmon.lib.console import ToLookAt, asked, chosen, shown
from incidents import services
from incidents.models import Incident, IncidentEvent

LABELS = {"open": "danger", "acknowledged": "warning", "resolved": "success"}


class EventInline(TeamInline, TabularInline):
    model = IncidentEvent
    fields = readonly_fields = ["at", "kind", "by", "text"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Incident | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Incident | None = None) -> bool:
        return False


@admin.register(Incident)
class IncidentAdmin(ToLookAt, TeamRows):
    list_display = ["monitor_name", "shown_status", "severity", "reason", "opened_at", "resolved_at", "team"]
    list_filter = ["status", "severity", "reason", "team"]
    search_fields = ["monitor_name", "monitor_url"]
    list_select_related = ["team"]
    actions = ["acknowledge_selected", "resolve_selected"]
    actions_detail = ["acknowledge_one", "resolve_one"]
    inlines = [EventInline]
    fields = [
        "shown_status", "monitor", "monitor_name", "monitor_url", "team", "severity", "reason", "detail",
        "opened_at", "acknowledged_at", "acknowledged_by", "resolved_at", "resolution", "shown_evidence",
    ]  # fmt: skip
    readonly_fields = ["shown_status", "shown_evidence"]

    @display(description="Status", ordering="status", label=LABELS)
    def shown_status(self, incident: Incident) -> str:
        return incident.status

    @display(description="Evidence")
    def shown_evidence(self, incident: Incident) -> str:
        return format_html(
            '<pre class="whitespace-pre-wrap break-all">{}</pre>',
            json.dumps(incident.evidence, indent=2, ensure_ascii=False),
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        return super().get_queryset(request).select_related("monitor", "acknowledged_by", "team")

    @admin.action(description="Acknowledge", permissions=["act"])
    def acknowledge_selected(self, request: HttpRequest, queryset: QuerySet[Incident]) -> None:
        self._each(request, queryset, services.acknowledge, "Acknowledged")

    @admin.action(description="Resolve", permissions=["act"])
    def resolve_selected(self, request: HttpRequest, queryset: QuerySet[Incident]) -> None:
        self._each(request, queryset, services.resolve, "Resolved")

    def _each(self, request: HttpRequest, queryset: QuerySet[Incident], deed, done: str) -> None:
        count = 0
        for incident in queryset.order_by("id"):
            try:
                deed(incident, request.user, read_clock())
                count += 1
            except services.IncidentClosed:
                continue  # somebody else was first, which is what was wanted
        messages.success(request, f"{done} {count}.")

    @action(
        description="Acknowledge",
        url_path="acknowledge",
        permissions=["act"],
        dialog=asked(
            "Acknowledge this incident?", "Those who were told of it hear that you are on it.", "Acknowledge"
        ),
    )
    def acknowledge_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.acknowledge_selected(request, chosen(self, request, object_id))
        return shown("incidents_incident", object_id)

    @action(
        description="Resolve",
        url_path="resolve",
        permissions=["act"],
        dialog=asked("Resolve this incident?", "The monitor stays what its probes say it is.", "Resolve"),
    )
    def resolve_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.resolve_selected(request, chosen(self, request, object_id))
        return shown("incidents_incident", object_id)
