"""Channels, subscriptions, templates and deliveries in the console."""

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from unfold.admin import StackedInline, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextareaWidget

from accounts.console import TeamInline, TeamRows
from healthmon.lib.clock import now as read_clock
from healthmon.lib.console import JudgedForm, ToLookAt, asked, chosen, shown
from notifications import routing, services
from notifications.models import Channel, Delivery, DeliveryAttempt, MessageTemplate, Subscription
from notifications.serializers import (
    ChannelSerializer,
    ConfigField,
    MessageTemplateSerializer,
    described,
    hours_problem,
    zone_problem,
)
from notifications.team_templates import NAMES
from notifications.transports import CHANNEL_KINDS

LABELS = {"sent": "success", "pending": "info", "sending": "info", "dead": "danger", "muted": "default"}
HEALTH = {"well": "success", "failing": "danger", "disabled": "default", "not used yet": "info"}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class ChannelForm(JudgedForm):
    config = forms.JSONField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text=format_html_join(
            "",
            "<p>{}</p>",
            [
                ("A JSON object, with what the kind needs. Secrets are not shown again.",),
                *((f"{kind} – {described(kind)}",) for kind in CHANNEL_KINDS),
            ],
        ),
    )

    class Meta:
        model = Channel
        fields = ["team", "name", "kind", "config", "enabled", *services.HABITS]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "gather_seconds" in self.fields:
            self.fields["gather_seconds"].required = False
        if not self.instance.pk:
            for name in ("gather_seconds", "rate_per_minute"):
                self.initial[name] = None
                self.fields[name].help_text += " When adding, empty: what suits the kind."
        else:
            self.initial["config"] = ConfigField().to_representation(self.instance)

    def serializer(self, data: Mapping[str, Any]) -> ChannelSerializer:
        adding = not self.instance.pk
        left_empty = {"gather_seconds", "rate_per_minute"} if adding else {"gather_seconds"}
        data = {
            name: value
            for name, value in data.items()
            if name != "team" and not (name in left_empty and value is None)
        }
        return ChannelSerializer(None if adding else self.instance, data=data, partial=not adding)


class SubscriptionForm(forms.ModelForm):
    kinds = forms.MultipleChoiceField(
        required=False,
        choices=[(kind, kind.replace("_", " ")) for kind in routing.ROUTED],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=f"None ticked: all but {' and '.join(routing.OPT_IN)}.",
    )
    days = forms.TypedMultipleChoiceField(
        coerce=int,
        required=False,
        choices=list(enumerate(DAYS)),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="None ticked: every day.",
    )

    class Meta:
        model = Subscription
        fields = [
            "scope", "tag", "monitor", "kinds", "min_severity", "days", "from_time", "until_time", "time_zone"
        ]  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("min_severity", "time_zone"):  # what is not sent is the default
            self.fields[name].required = False

    def clean_kinds(self) -> list[str]:
        return [kind for kind in routing.ROUTED if kind in self.cleaned_data["kinds"]]

    def clean_days(self) -> list[int]:
        return sorted(self.cleaned_data["days"])

    def clean_min_severity(self) -> str:
        return self.cleaned_data["min_severity"] or Subscription._meta.get_field("min_severity").default

    def clean_time_zone(self) -> str:
        name = self.cleaned_data["time_zone"] or Subscription._meta.get_field("time_zone").default
        if wrong := zone_problem(name):
            raise forms.ValidationError(wrong)
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if {"from_time", "until_time"} <= cleaned.keys() and (
            wrong := hours_problem(cleaned["from_time"], cleaned["until_time"])
        ):
            self.add_error(*wrong)
        return cleaned


class SubscriptionFormSet(forms.BaseInlineFormSet):
    def clean(self) -> None:
        super().clean()
        for form in self.forms:
            monitor = getattr(form, "cleaned_data", {}).get("monitor")
            if monitor and self.instance.team_id and monitor.team_id != self.instance.team_id:
                form.add_error("monitor", "This monitor is another team's.")


class SubscriptionInline(TeamInline, StackedInline):
    model = Subscription
    form = SubscriptionForm
    formset = SubscriptionFormSet
    fields = [
        ("scope", "tag", "monitor"), "kinds", "min_severity", "days", ("from_time", "until_time", "time_zone")
    ]  # fmt: skip
    autocomplete_fields = ["monitor"]
    extra = 0


@admin.register(Channel)
class ChannelAdmin(TeamRows):
    form = ChannelForm
    list_display = ["name", "kind", "shown_health", "last_success_at", "disabled_reason", "team"]
    list_filter = ["kind", "enabled", ("failing_since", admin.EmptyFieldListFilter), "team"]
    search_fields = ["name"]
    list_select_related = ["team"]
    actions_detail = ["test_one"]
    inlines = [SubscriptionInline]

    @display(description="Health", label=HEALTH)
    def shown_health(self, channel: Channel) -> str:
        if not channel.enabled:
            return "disabled"
        if channel.failing_since:
            return "failing"
        return "well" if channel.last_success_at else "not used yet"

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> list[str]:
        if obj is None:
            return []
        fixed = [
            "team", "kind", "disabled_reason", "last_success_at", "failing_since", "failures"
        ]  # fmt: skip
        return [*fixed, "config"] if obj.for_owners else fixed

    def has_delete_permission(self, request: HttpRequest, obj: Channel | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and obj.for_owners)

    def save_model(self, request: HttpRequest, obj: Channel, form: ChannelForm, change: bool) -> None:
        now = read_clock()
        if change:
            services.update_channel(obj, form.validated, now)
            return
        given = form.validated
        channel, secrets = services.create_channel(
            form.cleaned_data["team"],
            given["name"],
            given["kind"],
            given["config"],
            given.get("enabled", False),
            now,
            **{name: given[name] for name in services.HABITS if name in given},
        )
        obj.pk = channel.pk
        for name, secret in secrets.items():
            messages.warning(request, f"Its {name}, shown this once: {secret}")

    def save_formset(self, request: HttpRequest, form: forms.ModelForm, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        for subscription in [*formset.new_objects, *(row for row, _ in formset.changed_objects)][:1]:
            services.subscribed(subscription, read_clock())  # asks for its channel, so one is enough

    @action(
        description="Send a test",
        url_path="test",
        permissions=["change"],
        dialog=asked("Send a test?", "It takes the way that alerts take.", "Send"),
    )
    def test_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        delivery = services.test(chosen(self, request, object_id).get(), read_clock())
        messages.success(request, "A test is on its way; this page says how it went.")
        return shown("notifications_delivery", delivery.pk)


class MessageTemplateForm(JudgedForm):
    class Meta:
        model = MessageTemplate
        fields = ["team", "kind", "subject", "text"]
        widgets = {"text": UnfoldAdminTextareaWidget(attrs={"rows": 12})}
        help_texts = {
            "text": format_html_join(
                "",
                "<p>{}</p>",
                [
                    ("Empty: our words. {{ name }} stands for a fact; what is between {{#name}} and {{/name}}"
                     " is there if it is.",),
                    *((f"{{{{ {name} }}}} – {meaning}",) for name, meaning in NAMES.items()),
                ],
            )
        }  # fmt: skip

    def serializer(self, data: Mapping[str, Any]) -> MessageTemplateSerializer:
        team = self.instance.team if self.instance.pk else data["team"]
        data = {name: value for name, value in data.items() if name != "team"}
        return MessageTemplateSerializer(
            self.instance if self.instance.pk else None, data=data, context={"team": team}
        )


@admin.register(MessageTemplate)
class MessageTemplateAdmin(TeamRows):
    form = MessageTemplateForm
    list_display = ["kind", "subject", "team", "updated_at"]
    list_filter = ["kind", "team"]
    list_select_related = ["team"]

    def get_readonly_fields(self, request: HttpRequest, obj: MessageTemplate | None = None) -> list[str]:
        return ["team"] if obj else []

    def save_model(
        self, request: HttpRequest, obj: MessageTemplate, form: MessageTemplateForm, change: bool
    ) -> None:
        services.set_template(obj, form.validated, read_clock())


class AttemptInline(TeamInline, TabularInline):
    model = DeliveryAttempt
    verbose_name_plural = "tries"
    fields = readonly_fields = ["started_at", "took_ms", "outcome", "detail"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        return False


@admin.register(Delivery)
class DeliveryAdmin(ToLookAt, TeamRows):
    team_path = "channel__team"
    list_display = [
        "subject",
        "channel",
        "shown_status",
        "attempts",
        "next_attempt_at",
        "sent_at",
        "last_error",
    ]
    list_filter = ["status", "kind", "channel__kind", "channel"]
    actions = ["replay_selected"]
    inlines = [AttemptInline]
    fields = [
        "subject", "text", "payload", "channel", "kind", "shown_status", "attempts", "next_attempt_at", "leased_until",
        "sent_at", "last_error", "key", "created_at",
    ]  # fmt: skip
    readonly_fields = ["subject", "text", "payload", "shown_status"]
    list_select_related = ["message", "channel"]

    @display(description="Message")
    def subject(self, delivery: Delivery) -> str:
        return delivery.message.subject

    @display(description="Words")
    def text(self, delivery: Delivery) -> str:
        return delivery.message.text

    @display(description="Payload")
    def payload(self, delivery: Delivery) -> str:
        return json.dumps(delivery.message.payload, indent=2, ensure_ascii=False)

    @display(description="Status", ordering="status", label=LABELS)
    def shown_status(self, delivery: Delivery) -> str:
        return delivery.status

    @admin.action(description="Replay the dead ones", permissions=["act"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        count = services.replay(Delivery.objects.filter(pk__in=queryset.values("pk")), read_clock())
        messages.success(request, f"Replaying {count}.")
