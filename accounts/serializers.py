from rest_framework import serializers

from accounts.models import Membership, Role, Team, User
from healthmon.lib.api import StrictSerializer


class CredentialsSerializer(StrictSerializer):
    # Not an EmailField: what is no address is as wrong as one nobody has, and answered alike.
    email = serializers.CharField(max_length=254, write_only=True)
    password = serializers.CharField(
        max_length=1_000, write_only=True, trim_whitespace=False, style={"input_type": "password"}
    )


class RefreshSerializer(StrictSerializer):
    refresh = serializers.CharField(max_length=4_000)


class TokensSerializer(serializers.Serializer):
    access = serializers.CharField(read_only=True)
    refresh = serializers.CharField(read_only=True)


class TeamSerializer(serializers.ModelSerializer):
    role = serializers.ChoiceField(Role.choices, read_only=True, help_text="What you are there.")

    class Meta:
        model = Team
        fields = ["id", "name", "slug", "role", "created_at"]
        read_only_fields = fields


class MeSerializer(serializers.ModelSerializer):
    teams = TeamSerializer(many=True, read_only=True)

    class Meta:
        model = User
        fields = ["id", "email", "name", "teams"]
        read_only_fields = fields


class MemberSerializer(serializers.ModelSerializer):
    id = serializers.IntegerField(source="user.id", read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)
    name = serializers.CharField(source="user.name", read_only=True)
    joined_at = serializers.DateTimeField(source="created_at", read_only=True)

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "role", "joined_at"]
        read_only_fields = fields
