"""Monitors in the console."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.forms import SimpleArrayField
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.console import SuperusersOnly, TeamRows
from healthmon.lib.clock import now as read_clock
from healthmon.lib.console import JudgedForm, ToLookAt, asked, chosen, shown
from monitors import selectors, services
from monitors.models import DEFAULT_REGION, Monitor, Prober, Region, Result
from monitors.serializers import HeadersField, MonitorSerializer, columns_and_regions
from notifications import selectors as notifications

LABELS = {"up": "success", "degraded": "warning", "down": "danger", "new": "info", "paused": "default"}
RESULTS_SHOWN = 20
RECIPIENTS_SHOWN = 100


class MonitorForm(JudgedForm):
    headers = forms.JSONField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text='{"Accept": "…"}, or {"X-Key": {"value": "…", "secret": true}}; secrets are not shown again.',
    )
    tags = SimpleArrayField(forms.CharField(), required=False, widget=UnfoldAdminTextInputWidget)
    regions = forms.MultipleChoiceField(widget=UnfoldAdminCheckboxSelectMultipleWidget)

    class Meta:
        model = Monitor
        fields = [
            "team", "name", "kind", "url", "method", "headers", "body", "interval_seconds", "timeout_seconds",
            "expected_status", "follow_redirects", "verify_tls", "degraded_after_ms", "failures_to_open",
            "successes_to_close", "recheck_seconds", "connection", "tags", "severity", "description",
            "runbook_url",
        ]  # fmt: skip
        widgets = {"url": UnfoldAdminTextInputWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["regions"].choices = list(Region.objects.order_by("slug").values_list("slug", "name"))
        self.initial["regions"] = [DEFAULT_REGION]
        if self.instance.pk:
            self.initial["headers"] = HeadersField().to_representation(self.instance)
            self.initial["regions"] = list(self.instance.states.values_list("region__slug", flat=True))

    def serializer(self, data: Mapping[str, Any]) -> MonitorSerializer:
        data = {name: value for name, value in data.items() if name != "team"}
        if data["headers"] is None:
            data["headers"] = {}
        return MonitorSerializer(self.instance if self.instance.pk else None, data=data)


@admin.register(Monitor)
class MonitorAdmin(TeamRows):
    form = MonitorForm
    list_display = ["name", "shown_status", "url", "interval", "status_changed_at", "team"]
    list_filter = ["status", "severity", "team", "interval_seconds"]
    search_fields = ["name", "url"]
    list_per_page = 50
    list_select_related = ["team"]
    readonly_fields = ["shown_status", "status_changed_at", "shown_results", "shown_recipients"]
    actions = ["pause_selected", "resume_selected", "check_selected"]
    actions_detail = ["pause_one", "resume_one", "check_one"]
    fieldsets = [
        (None, {"fields": ["shown_status", "status_changed_at", "team", "name", "url", "tags", "external_id"]}),
        (
            "Request",
            {
                "fields": [
                    "kind", "method", "headers", "body", "timeout_seconds", "follow_redirects", "verify_tls",
                    "connection",
                ]
            },
        ),
        ("What is well", {"fields": ["expected_status", "degraded_after_ms"]}),
        (
            "When, where, and how soon it is an incident",
            {"fields": ["interval_seconds", "regions", "failures_to_open", "successes_to_close", "recheck_seconds"]},
        ),
        ("For whom is on call", {"fields": ["severity", "description", "runbook_url"]}),
        ("Who would be told that it is down, now", {"fields": ["shown_recipients"]}),
        ("Newest results", {"fields": ["shown_results"]}),
    ]  # fmt: skip

    @display(description="Status", ordering="status", label=LABELS)
    def shown_status(self, monitor: Monitor) -> str:
        return monitor.status

    @display(description="Every", ordering="interval_seconds")
    def interval(self, monitor: Monitor) -> str:
        return f"{monitor.interval_seconds} s"

    @display(description="")
    def shown_results(self, monitor: Monitor) -> str:
        if not monitor.pk:
            return "It is looked at within two seconds of being saved."
        results = Result.objects.filter(monitor=monitor).select_related("region").order_by("-scheduled_at")
        rows = format_html_join(
            "",
            "<tr>" + '<td class="pr-4 whitespace-nowrap">{}</td>' * 5 + "<td>{}</td></tr>",
            (
                (
                    f"{result.started_at:%Y-%m-%d %H:%M:%S}",
                    result.region.slug,
                    result.reason,
                    result.status_code or "",
                    f"{result.total_ms:.0f} ms" if result.total_ms is not None else "",
                    result.detail,
                )
                for result in results[:RESULTS_SHOWN]
            ),
        )
        return format_html(
            '<table class="w-full text-left"><thead><tr><th>At (UTC)</th><th>Region</th><th>Reason</th><th>Status</th>'
            "<th>Took</th><th>Detail</th></tr></thead><tbody>{}</tbody></table>",
            rows,
        )

    @display(description="")
    def shown_recipients(self, monitor: Monitor) -> str:
        if not monitor.pk:
            return "Channels that subscribe to all monitors, to one of its tags, or to it."
        message = selectors.message_about(monitor, "opened", read_clock())
        channels = notifications.channels(monitor.team_id).order_by("id")[:RECIPIENTS_SHOWN]
        rows = format_html_join(
            "",
            '<tr><td class="pr-4 whitespace-nowrap"><a class="underline" href="{}">{}</a></td>'
            '<td class="pr-4">{}</td><td class="pr-4">{}</td><td>{}</td></tr>',
            (
                (
                    reverse("admin:notifications_channel_change", args=[found.channel]),
                    found.channel_name,
                    found.channel_kind,
                    "yes" if found.told else "no",
                    found.why,
                )
                for found in notifications.recipients(message, channels)
            ),
        )
        return format_html(
            '<table class="w-full text-left"><thead><tr><th>Channel</th><th>Kind</th><th>Told</th><th>Why</th></tr>'
            '</thead><tbody>{}</tbody></table><a class="underline" href="{}?team__id__exact={}">All channels</a>',
            rows,
            reverse("admin:notifications_channel_changelist"),
            monitor.team_id,
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Monitor]:
        return super().get_queryset(request).defer("body", "sealed_headers", "description")

    def save_model(self, request: HttpRequest, obj: Monitor, form: MonitorForm, change: bool) -> None:
        now = read_clock()
        columns, regions = columns_and_regions(form.validated)
        if change:
            services.update(obj, columns, now, regions)
        else:
            [made] = services.create(form.cleaned_data["team"], [columns], now, [regions])
            obj.pk = made.pk

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        try:
            return super().add_view(request, form_url, extra_context)
        except services.QuotaReached as full:
            messages.error(request, str(full))
            return redirect("admin:monitors_monitor_changelist")

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Monitor | None:
        monitor = super().get_object(request, object_id, from_field)
        if monitor and request.method == "POST" and connection.in_atomic_block:
            # Judged as it is while it is locked: an interval and a time-out that come at once must not miss each other.
            services.locked([monitor.pk])
            monitor = super().get_object(request, object_id, from_field)
        return monitor

    def get_readonly_fields(self, request: HttpRequest, obj: Monitor | None = None) -> list[str]:
        # A monitor's history, incidents and secrets are its team's.
        return [*self.readonly_fields, "team"] if obj else self.readonly_fields

    def delete_model(self, request: HttpRequest, obj: Monitor) -> None:
        services.delete([obj], request.user, read_clock())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Monitor]) -> None:
        services.delete(queryset, request.user, read_clock())

    @admin.action(description="Pause", permissions=["change"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Monitor]) -> None:
        messages.success(request, f"Paused {services.pause(queryset, request.user, read_clock())}.")

    @admin.action(description="Resume", permissions=["change"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Monitor]) -> None:
        messages.success(request, f"Resumed {services.resume(queryset, read_clock())}.")

    @admin.action(description="Check now", permissions=["act"])
    def check_selected(self, request: HttpRequest, queryset: QuerySet[Monitor]) -> None:
        count = services.check_now(queryset.filter(enabled=True), read_clock())
        messages.success(request, f"Checking {count} within two seconds.")

    @action(
        description="Pause",
        url_path="pause",
        permissions=["change"],
        dialog=asked(
            "Pause this monitor?", "It is not probed until resumed, and its incident is resolved.", "Pause"
        ),
    )
    def pause_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.pause_selected(request, chosen(self, request, object_id))
        return shown("monitors_monitor", object_id)

    @action(
        description="Resume",
        url_path="resume",
        permissions=["change"],
        dialog=asked(
            "Resume this monitor?", "It is probed within two seconds, and at its interval.", "Resume"
        ),
    )
    def resume_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.resume_selected(request, chosen(self, request, object_id))
        return shown("monitors_monitor", object_id)

    @action(
        description="Check now",
        url_path="check",
        permissions=["act"],
        dialog=asked("Check it now?", "It is probed within two seconds, out of turn.", "Check now"),
    )
    def check_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.check_selected(request, chosen(self, request, object_id))
        return shown("monitors_monitor", object_id)


@admin.register(Region)
class RegionAdmin(SuperusersOnly):
    list_display = ["name", "slug", "enabled"]

    def get_readonly_fields(self, request: HttpRequest, obj: Region | None = None) -> list[str]:
        return ["slug"] if obj else []  # it names queues that probers read

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its results stay, and say where they come from; what is over is disabled


@admin.register(Prober)
class ProberAdmin(ToLookAt, SuperusersOnly):
    list_display = ["name", "region", "seen_at"]
    ordering = ["-seen_at"]
