from rest_framework import serializers

from accounts.models import ApiKey, Invitation, Membership, Role, Scope, Team, User
from healthmon.lib.api import StrictModelSerializer, StrictSerializer, one_line


class CredentialsSerializer(StrictSerializer):
    # Not an EmailField: what is no address is as wrong as one nobody has, and answered alike.
    email = serializers.CharField(max_length=254, write_only=True)
    password = serializers.CharField(
        max_length=1_000, write_only=True, trim_whitespace=False, style={"input_type": "password"}
    )
    code = serializers.CharField(
        max_length=40,
        write_only=True,
        required=False,
        help_text="One-time or recovery code, of who has a second factor.",
    )


class RefreshSerializer(StrictSerializer):
    refresh = serializers.CharField(max_length=4_000)


class TokensSerializer(serializers.Serializer):
    access = serializers.CharField(read_only=True)
    refresh = serializers.CharField(read_only=True)


class PasswordSerializer(StrictSerializer):
    old = serializers.CharField(
        max_length=1_000, write_only=True, trim_whitespace=False, style={"input_type": "password"}
    )
    new = serializers.CharField(
        max_length=1_000, write_only=True, trim_whitespace=False, style={"input_type": "password"}
    )


# Not a QuickModelSerializer: `role` is a column of the query and not of the model.
class TeamSerializer(StrictSerializer, serializers.ModelSerializer):
    name = serializers.CharField(max_length=100, validators=[one_line])
    role = serializers.ChoiceField(Role.choices, read_only=True, help_text="What you are there.")

    class Meta:
        model = Team
        fields = ["id", "name", "slug", "role", "created_at"]
        read_only_fields = ["created_at"]


class TeamChangeSerializer(TeamSerializer):
    """The slug stays: it is what programs send as X-Team."""

    class Meta(TeamSerializer.Meta):
        read_only_fields = ["slug", "created_at"]


class MeSerializer(serializers.ModelSerializer):
    teams = TeamSerializer(many=True, read_only=True)

    class Meta:
        model = User
        fields = ["id", "email", "name", "teams"]
        read_only_fields = fields


class MemberSerializer(StrictModelSerializer):
    id = serializers.IntegerField(source="user.id", read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)
    name = serializers.CharField(source="user.name", read_only=True)
    joined_at = serializers.DateTimeField(source="created_at", read_only=True)

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "role", "joined_at"]


class InvitationSerializer(StrictModelSerializer):
    invited_by = serializers.EmailField(source="invited_by.email", allow_null=True, read_only=True)
    mailed_at = serializers.DateTimeField(
        allow_null=True, read_only=True, help_text="When the mail server took it; null if it never did."
    )

    class Meta:
        model = Invitation
        fields = ["id", "email", "role", "invited_by", "created_at", "expires_at", "mailed_at"]
        read_only_fields = ["created_at", "expires_at"]
        validators = []  # once for each team and address: the service says so, in words


class InvitedSerializer(InvitationSerializer):
    """The answer to whoever invites."""

    link = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="What to hand on where no mail server is configured. Shown this once; null where mail is sent.",
    )
    mail_problem = serializers.CharField(
        read_only=True, allow_null=True, help_text="Why no mail was sent; send it again."
    )

    class Meta(InvitationSerializer.Meta):
        fields = [*InvitationSerializer.Meta.fields, "link", "mail_problem"]


class AcceptSerializer(StrictSerializer):
    token = serializers.CharField(max_length=200, write_only=True)
    name = serializers.CharField(max_length=100, required=False, allow_blank=True, validators=[one_line])
    password = serializers.CharField(
        max_length=1_000,
        write_only=True,
        required=False,
        trim_whitespace=False,
        style={"input_type": "password"},
        help_text="For who has no account yet.",
    )


class ApiKeySerializer(StrictModelSerializer):
    name = serializers.CharField(max_length=100, validators=[one_line])
    scopes = serializers.ListField(
        child=serializers.ChoiceField(Scope.choices), min_length=1, max_length=len(Scope)
    )
    created_by = serializers.EmailField(source="created_by.email", allow_null=True, read_only=True)

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "prefix", "scopes", "created_by", "created_at", "expires_at", "last_used_at", "revoked_at",
        ]  # fmt: skip
        read_only_fields = ["prefix", "created_at", "last_used_at", "revoked_at"]

    def validate_expires_at(self, moment):
        if moment is not None and moment <= self.context["now"]:
            raise serializers.ValidationError("This is over: a later moment is needed, or null for none.")
        return moment


class ApiKeyMadeSerializer(ApiKeySerializer):
    """The answer to the POST alone."""

    key = serializers.CharField(read_only=True, help_text="`hm_…`. Shown this once; keep it.")

    class Meta(ApiKeySerializer.Meta):
        fields = [*ApiKeySerializer.Meta.fields, "key"]
