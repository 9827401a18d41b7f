"""Channels, subscriptions and deliveries in the console."""

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from healthmon.lib.clock import now as read_clock
from healthmon.lib.console import JudgedForm, ToLookAt, asked, chosen, shown
from notifications import services
from notifications.models import Channel, Delivery, Subscription
from notifications.serializers import ChannelSerializer, ConfigField

LABELS = {"sent": "success", "pending": "info", "sending": "info", "dead": "danger", "muted": "default"}


class ChannelForm(JudgedForm):
    config = forms.JSONField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text='webhook: {"url": "https://…"}; email: {"to": ["…"]}. A webhook without a secret gets one.',
    )

    class Meta:
        model = Channel
        fields = ["team", "name", "kind", "config", "enabled"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["config"] = ConfigField().to_representation(self.instance)

    def serializer(self, data: Mapping[str, Any]) -> ChannelSerializer:
        data = {name: value for name, value in data.items() if name != "team"}
        return ChannelSerializer(
            self.instance if self.instance.pk else None, data=data, partial=bool(self.instance.pk)
        )


class SubscriptionFormSet(forms.BaseInlineFormSet):
    def clean(self) -> None:
        super().clean()
        for form in self.forms:
            monitor = getattr(form, "cleaned_data", {}).get("monitor")
            if monitor and self.instance.team_id and monitor.team_id != self.instance.team_id:
                form.add_error("monitor", "This monitor is another team's.")


class SubscriptionInline(TabularInline):
    model = Subscription
    formset = SubscriptionFormSet
    fields = ["scope", "tag", "monitor"]
    autocomplete_fields = ["monitor"]
    extra = 1


@admin.register(Channel)
class ChannelAdmin(ModelAdmin):
    form = ChannelForm
    list_display = ["name", "kind", "enabled", "disabled_reason", "team"]
    list_filter = ["kind", "enabled", "team"]
    search_fields = ["name"]
    list_select_related = ["team"]
    actions_detail = ["test_one"]
    inlines = [SubscriptionInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> list[str]:
        return ["team", "kind", "disabled_reason"] if obj else []

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
        )
        obj.pk = channel.pk
        for name, secret in secrets.items():
            messages.warning(request, f"Its {name}, shown this once: {secret}")

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


@admin.register(Delivery)
class DeliveryAdmin(ToLookAt):
    list_display = [
        "subject",
        "channel",
        "shown_status",
        "attempts",
        "next_attempt_at",
        "sent_at",
        "last_error",
    ]
    list_filter = ["status", "channel__kind"]
    actions = ["replay_selected"]
    fields = [
        "subject", "text", "payload", "channel", "shown_status", "attempts", "next_attempt_at", "leased_until",
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
