from rest_framework import serializers

from healthmon.lib.api import QuickModelSerializer, StrictSerializer
from incidents.models import Incident, IncidentEvent


class IncidentSerializer(QuickModelSerializer):
    acknowledged_by = serializers.EmailField(source="acknowledged_by.email", allow_null=True, default=None)

    class Meta:
        model = Incident
        fields = [
            "id", "status", "monitor", "monitor_name", "monitor_url", "severity", "reason", "detail",
            "opened_at", "acknowledged_at", "acknowledged_by", "resolved_at", "resolution",
        ]  # fmt: skip


class ExplanationSerializer(QuickModelSerializer):
    """Why it was decided: the policy, the counters of each region, the results before it, the answer that decided."""

    class Meta:
        model = Incident
        fields = ["id", "reason", "detail", "opened_at", "evidence"]


class EventSerializer(QuickModelSerializer):
    by = serializers.EmailField(source="by.email", allow_null=True, default=None)

    class Meta:
        model = IncidentEvent
        fields = ["id", "kind", "at", "by", "text"]


class CommentSerializer(StrictSerializer):
    text = serializers.CharField(max_length=10_000)
