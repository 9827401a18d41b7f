"""Channels, subscriptions, templates and deliveries as the API shows and takes them."""

from datetime import time
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from healthmon.lib.api import QuickModelSerializer, StrictModelSerializer, one_line
from healthmon.lib.sealing import SealBroken
from notifications import outbox, routing, services
from notifications.messages import KINDS, SEVERITIES
from notifications.models import Channel, Delivery, DeliveryAttempt, MessageTemplate, Subscription
from notifications.team_templates import problem
from notifications.transports import TRANSPORTS, ConfigInvalid, Transport

MOST_TRIES_SHOWN = 100  # fourteen, and again as many at every replay


def _schema_of(kind: str, transport: Transport) -> dict[str, Any]:
    return {
        "type": "object",
        "title": kind,
        "properties": {
            setting.name: {"description": setting.help + (" Never shown again." if setting.secret else "")}
            for setting in transport.settings
        },
        "required": [setting.name for setting in transport.settings if setting.needed],
        "additionalProperties": False,
    }


def described(kind: str) -> str:
    """This will say in one line what a kind of channel needs to know: `url: …; secret (optional, secret): …`."""
    told = []
    for setting in TRANSPORTS[kind].settings:
        notes = [
            note for note, is_so in (("optional", not setting.needed), ("secret", setting.secret)) if is_so
        ]
        told.append(setting.name + (f" ({', '.join(notes)})" if notes else "") + f": {setting.help}")
    return " ".join(told)


@extend_schema_field(
    {
        "anyOf": [_schema_of(kind, transport) for kind, transport in TRANSPORTS.items()],
        "example": {"url": "https://example.com/hook"},
    }
)
class ConfigField(serializers.DictField):
    """What a kind of channel needs to know; secrets are shown as `***`, long ones with their last four characters."""

    def get_attribute(self, instance: Channel) -> Channel:
        return instance

    def to_representation(self, channel: Channel) -> dict[str, Any]:
        try:
            secrets = outbox.secrets_of(channel)
        except SealBroken:  # one channel's lost key must not hide the list; sending says what is wrong
            secrets = {}
        return channel.config | {name: _masked(str(secret)) for name, secret in secrets.items()}


def _masked(secret: str) -> str:
    return f"***{secret[-4:]}" if len(secret) >= 16 else "***"


class ChannelSerializer(StrictModelSerializer):
    config = ConfigField()

    class Meta:
        model = Channel
        fields = [
            "id", "name", "kind", "config", "enabled", "disabled_reason", "gather_seconds", "rate_per_minute",
            "reminder_minutes", "last_success_at", "failing_since", "failures", "for_owners", "created_at",
            "updated_at",
        ]  # fmt: skip
        read_only_fields = [
            "disabled_reason", "last_success_at", "failing_since", "failures", "for_owners", "created_at", "updated_at",
        ]  # fmt: skip
        extra_kwargs = {"name": {"validators": [one_line]}}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self.instance and attrs.get("kind", self.instance.kind) != self.instance.kind:
            raise serializers.ValidationError({"kind": "A channel keeps its kind; make another one."})
        kind = attrs.get("kind") or self.instance.kind
        if attrs.get("gather_seconds") and TRANSPORTS[kind].for_machines:
            raise serializers.ValidationError(
                {"gather_seconds": f"A {kind} is told of each event by itself; leave it at 0."}
            )
        if "config" in attrs:
            try:
                services.validated(kind, attrs["config"], self.instance)
            except ConfigInvalid as invalid:
                raise serializers.ValidationError({"config": invalid.errors}) from None
        return attrs


class ChannelCreatedSerializer(ChannelSerializer):
    """The answer to the POST alone: with the secrets, also those that were made for it."""

    config = serializers.DictField()


class KindsField(serializers.ListField):
    """What a subscription is to, each once and in one order, so that the same twice is seen to be the same."""

    child = serializers.CharField()

    def to_internal_value(self, data: Any) -> list[str]:
        kinds = super().to_internal_value(data)
        for kind in kinds:
            if kind in routing.ADDRESSED:
                raise serializers.ValidationError(
                    f"`{kind}` goes to whom it is for; nobody subscribes to it."
                )
            if kind not in KINDS:
                raise serializers.ValidationError(
                    f"There is no kind {kind[:50]!r}; there are: {', '.join(routing.ROUTED)}."
                )
        return [kind for kind in KINDS if kind in kinds]


class DaysField(serializers.ListField):
    child = serializers.IntegerField(min_value=0, max_value=6)

    def to_internal_value(self, data: Any) -> list[int]:
        return sorted(set(super().to_internal_value(data)))


class ClockField(serializers.TimeField):
    """What a clock shows. An offset from UTC would be dropped in silence, and is refused instead."""

    def to_internal_value(self, data: Any) -> time:
        if isinstance(data, str) and set(data) & set("+-Zz"):
            raise serializers.ValidationError(
                "A time without an offset is needed: `time_zone` says whose it is."
            )
        return super().to_internal_value(data)


def zone_problem(name: str) -> str | None:
    """This will return what is wrong with the name of a time zone as one sentence, None if nothing is."""
    if name in routing.zones():
        return None
    meant = sorted(zone for zone in routing.zones() if name.lower() in zone.lower())[:3] if name else []
    return (
        f"There is no time zone {name[:64]!r}; one such as {' or '.join(meant) or 'Europe/Berlin'} is needed."
    )


def hours_problem(from_time: time | None, until_time: time | None) -> tuple[str, str] | None:
    """This will return the field that is missing of two, and one sentence; None if both are there, or neither."""
    if (from_time is None) == (until_time is None):
        return None
    field, other = ("from_time", "until_time") if from_time is None else ("until_time", "from_time")
    return field, f"Where there is `{other}`, this is needed too; leave out both for any hour."


class SubscriptionSerializer(StrictModelSerializer):
    kinds = KindsField(
        required=False,
        help_text=f"Of {', '.join(routing.ROUTED)}. Empty: of all but {', '.join(routing.OPT_IN)}.",
    )
    days = DaysField(required=False, help_text="0 is Monday. Empty: every day.")
    from_time = ClockField(required=False, allow_null=True, help_text="Null: at any hour.")
    until_time = ClockField(
        required=False, allow_null=True, help_text="Not later than `from_time`, it is that of the next day."
    )

    class Meta:
        model = Subscription
        fields = [
            "id", "channel", "scope", "tag", "monitor", "kinds", "min_severity", "days", "from_time", "until_time",
            "time_zone", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["created_at", "updated_at"]
        # The model's constraint says it once more; here the sentence is written for people.
        validators = []

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        team = self.context.get("team")
        if team is not None:
            # What is another team's does not exist.
            fields["channel"].queryset = Channel.objects.filter(team=team)
            monitors = Subscription._meta.get_field("monitor").related_model
            fields["monitor"].queryset = monitors.objects.filter(team=team)
        return fields

    def validate_time_zone(self, name: str) -> str:
        if wrong := zone_problem(name):
            raise serializers.ValidationError(wrong)
        return name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        def value(name: str) -> Any:
            return attrs[name] if name in attrs else getattr(self.instance, name, None)

        if wrong := hours_problem(value("from_time"), value("until_time")):
            raise serializers.ValidationError(dict([wrong]))
        scope = value("scope") or Subscription.Scope.ALL
        if scope == Subscription.Scope.TAG and not value("tag"):
            raise serializers.ValidationError({"tag": "With the scope `tag`, the tag is needed."})
        if scope == Subscription.Scope.MONITOR and value("monitor") is None:
            raise serializers.ValidationError(
                {"monitor": "With the scope `monitor`, the id of one is needed."}
            )
        if scope != Subscription.Scope.TAG and attrs.get("tag"):
            raise serializers.ValidationError({"tag": f"With the scope `{scope}` there is no tag."})
        if scope != Subscription.Scope.MONITOR and attrs.get("monitor"):
            raise serializers.ValidationError({"monitor": f"With the scope `{scope}` there is no monitor."})
        wanted = {
            "channel": value("channel"),
            "scope": scope,
            "tag": value("tag") if scope == Subscription.Scope.TAG else "",
            "monitor": value("monitor") if scope == Subscription.Scope.MONITOR else None,
            "kinds": value("kinds") or [],
            "min_severity": value("min_severity") or SEVERITIES[-1],
            "days": value("days") or [],
            "from_time": value("from_time"),
            "until_time": value("until_time"),
            "time_zone": value("time_zone") or "UTC",
        }
        same = Subscription.objects.filter(**wanted).exclude(pk=getattr(self.instance, "pk", None))
        if same.exists():
            raise serializers.ValidationError("This channel is subscribed to that already.")
        return attrs | wanted


class DeliverySerializer(QuickModelSerializer):
    incident = serializers.IntegerField(source="incident_id", allow_null=True)
    subject = serializers.CharField(source="message.subject")
    channel_name = serializers.CharField(source="channel.name")
    channel_kind = serializers.ChoiceField(source="channel.kind", choices=list(TRANSPORTS))

    class Meta:
        model = Delivery
        fields = [
            "id", "channel", "channel_name", "channel_kind", "incident", "kind", "subject", "key", "status", "attempts",
            "next_attempt_at", "sent_at", "last_error", "created_at",
        ]  # fmt: skip


class AttemptSerializer(QuickModelSerializer):
    class Meta:
        model = DeliveryAttempt
        fields = ["started_at", "took_ms", "outcome", "detail"]


class DeliveryShownSerializer(DeliverySerializer):
    """One by itself: with its tries, the newest last."""

    tries = serializers.SerializerMethodField()

    class Meta(DeliverySerializer.Meta):
        fields = [*DeliverySerializer.Meta.fields, "tries"]

    @extend_schema_field(AttemptSerializer(many=True))
    def get_tries(self, delivery: Delivery) -> list[dict[str, Any]]:
        newest = delivery.tries.order_by("-id")[:MOST_TRIES_SHOWN]
        return AttemptSerializer(reversed(newest), many=True).data


class MessageTemplateSerializer(StrictModelSerializer):
    class Meta:
        model = MessageTemplate
        fields = ["id", "kind", "subject", "text", "updated_at"]
        read_only_fields = ["updated_at"]
        extra_kwargs = {
            "subject": {"validators": [one_line]},
            "text": {"trim_whitespace": False},
        }

    def validate_subject(self, subject: str) -> str:
        return _template(subject)

    def validate_text(self, text: str) -> str:
        return _template(text)

    def validate_kind(self, kind: str) -> str:
        same = MessageTemplate.objects.filter(team=self.context["team"], kind=kind)
        if same.exclude(pk=getattr(self.instance, "pk", None)).exists():
            raise serializers.ValidationError(f"There is a template for `{kind}` already; change that one.")
        return kind


def _template(text: str) -> str:
    if wrong := problem(text):
        raise serializers.ValidationError(wrong)
    return text


class ReplayedSerializer(serializers.Serializer):
    replayed = serializers.IntegerField()
