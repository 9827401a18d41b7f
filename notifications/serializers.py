"""Channels, subscriptions and deliveries as the API shows and takes them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from healthmon.lib.api import StrictModelSerializer, one_line
from healthmon.lib.sealing import SealBroken
from notifications import outbox, services
from notifications.messages import KINDS
from notifications.models import Channel, Delivery, Subscription
from notifications.transports import TRANSPORTS, ConfigInvalid


@extend_schema_field(
    {"type": "object", "additionalProperties": {}, "example": {"url": "https://example.com/hook"}}
)
class ConfigField(serializers.DictField):
    """What a kind of channel needs to know; secrets are shown as `***` and their last four characters."""

    def get_attribute(self, instance: Channel) -> Channel:
        return instance

    def to_representation(self, channel: Channel) -> dict[str, Any]:
        try:
            secrets = outbox.secrets_of(channel)
        except SealBroken:  # one channel's lost key must not hide the list; sending says what is wrong
            secrets = {}
        return channel.config | {name: f"***{str(secret)[-4:]}" for name, secret in secrets.items()}


class ChannelSerializer(StrictModelSerializer):
    config = ConfigField()

    class Meta:
        model = Channel
        fields = ["id", "name", "kind", "config", "enabled", "disabled_reason", "created_at", "updated_at"]
        read_only_fields = ["disabled_reason", "created_at", "updated_at"]
        extra_kwargs = {"name": {"validators": [one_line]}}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self.instance and attrs.get("kind", self.instance.kind) != self.instance.kind:
            raise serializers.ValidationError({"kind": "A channel keeps its kind; make another one."})
        if "config" in attrs:
            kind = attrs.get("kind") or self.instance.kind
            try:
                services.validated(kind, attrs["config"], self.instance)
            except ConfigInvalid as invalid:
                raise serializers.ValidationError({"config": invalid.errors}) from None
        return attrs


class ChannelCreatedSerializer(ChannelSerializer):
    """The answer to the POST alone: with the secrets, also those that were made for it."""

    config = serializers.DictField()


class SubscriptionSerializer(StrictModelSerializer):
    class Meta:
        model = Subscription
        fields = ["id", "channel", "scope", "tag", "monitor", "created_at"]
        read_only_fields = ["created_at"]
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

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        def value(name: str) -> Any:
            return attrs[name] if name in attrs else getattr(self.instance, name, None)

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
        }
        same = Subscription.objects.filter(**wanted).exclude(pk=getattr(self.instance, "pk", None))
        if same.exists():
            raise serializers.ValidationError("This channel is subscribed to that already.")
        return attrs | wanted


class DeliverySerializer(serializers.ModelSerializer):
    kind = serializers.ChoiceField(source="message.kind", choices=KINDS)
    incident = serializers.IntegerField(source="message.incident_id", allow_null=True)
    subject = serializers.CharField(source="message.subject")
    channel_name = serializers.CharField(source="channel.name")
    channel_kind = serializers.ChoiceField(source="channel.kind", choices=list(TRANSPORTS))

    class Meta:
        model = Delivery
        fields = [
            "id", "channel", "channel_name", "channel_kind", "incident", "kind", "subject", "key", "status", "attempts",
            "next_attempt_at", "sent_at", "last_error", "created_at",
        ]  # fmt: skip


class ReplayedSerializer(serializers.Serializer):
    replayed = serializers.IntegerField()
