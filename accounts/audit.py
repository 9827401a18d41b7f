"""The audit over HTTP: who changed what of the team's, newest first. There is nothing to write."""

from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.viewsets import GenericViewSet

from accounts.filters import AuditFilter
from accounts.models import AuditEntry, Role
from accounts.scoping import TeamScoped
from healthmon.lib.api import QuickModelSerializer

_CHANGED = {
    "oneOf": [
        {
            "type": "object",
            "required": ["before", "after"],
            "properties": {"before": {}, "after": {}},
            "additionalProperties": False,
        },
        {"type": "string", "const": "changed"},
    ]
}


@extend_schema_field(
    {
        "type": "object",
        "description": "By column: what it was and is; of a secret one only that it is another.",
        "additionalProperties": _CHANGED,
    }
)
class ChangesField(serializers.JSONField):
    pass


class AuditEntrySerializer(QuickModelSerializer):
    object = serializers.IntegerField(source="object_id", read_only=True)
    user = serializers.IntegerField(source="user_id", read_only=True, allow_null=True)
    api_key = serializers.IntegerField(source="api_key_id", read_only=True, allow_null=True)
    changes = ChangesField(read_only=True)

    class Meta:
        model = AuditEntry
        fields = [
            "id", "at", "actor_kind", "actor", "user", "api_key", "request_id", "kind", "object", "name", "operation",
            "changes",
        ]  # fmt: skip
        read_only_fields = fields


@extend_schema_view(list=extend_schema(summary="Who changed what"))
class AuditViewSet(TeamScoped, ListModelMixin, GenericViewSet):
    """What people, keys and healthmon itself changed of the team's things, whichever way they went about it."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = AuditFilter
    minimum_role = {"list": Role.ADMIN}
    people_only = True  # a key that reads who does what, and when, is one to look for
