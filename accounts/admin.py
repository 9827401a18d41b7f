import json
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.authentication import close_sessions
from accounts.console import SuperusersOnly, TeamInline, TeamRows, teams_where
from accounts.models import ApiKey, AuditEntry, Membership, Role, Team, User
from accounts.services import (
    LastSuperuser,
    is_last_superuser,
    revoke_keys,
    take_second_factors_away,
)
from healthmon.lib.clock import now as read_clock
from healthmon.lib.console import ToLookAt, asked, chosen, shown

# Roles are on the team, the schedule is in code, sessions end by logging out or by a new password, and second factors
# are their owner's.
for model in (
    Authenticator,
    EmailAddress,
    SocialAccount,
    SocialApp,
    SocialToken,
    Group,
    BlacklistedToken,
    OutstandingToken,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
):
    admin.site.unregister(model)


class _LowerCaseEmail(forms.ModelForm):
    def clean_email(self) -> str:
        return self.cleaned_data["email"].lower()


class UserAddForm(_LowerCaseEmail, UserCreationForm):
    class Meta:
        model = User
        fields = ["email", "name"]


class UserEditForm(_LowerCaseEmail, UserChangeForm):
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        stays_able = cleaned.get("is_active") and cleaned.get("is_superuser")
        if not stays_able and is_last_superuser(self.instance):
            raise forms.ValidationError(str(LastSuperuser()))
        return cleaned

    class Meta:
        model = User
        fields = "__all__"


class KeepsAnOwner(forms.models.BaseInlineFormSet):
    """What `services.LastOwner` is to the API: nobody takes a team's last owner away."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        going = [
            form
            for form in self.initial_forms
            if form.initial["role"] == Role.OWNER
            and (form in self.deleted_forms or {"role", "team", "user"} & set(form.changed_data))
        ]
        staying = [
            form.cleaned_data
            for form in self.forms
            if form.cleaned_data
            and form not in self.deleted_forms
            and form.cleaned_data["role"] == Role.OWNER
        ]
        owners = Membership.objects.filter(role=Role.OWNER, user__is_active=True)
        owners = owners.exclude(pk__in=[form.instance.pk for form in going])
        for team in {form.initial["team"] for form in going}:
            named = any(row["team"].pk == team for row in staying)
            if not named and not owners.filter(team=team).exists():
                raise forms.ValidationError("A team keeps an owner: make somebody else one first.")


class MembershipInline(TeamInline, TabularInline):
    """Superusers change it; a team's own people do so over the API, which knows of invitations and last owners."""

    model = Membership
    formset = KeepsAnOwner
    fields = ["team", "user", "role"]
    autocomplete_fields = ["team", "user"]
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        rows = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(team__in=teams_where(request, Role.VIEWER))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser


@admin.register(User)
class UserAdmin(DjangoUserAdmin, TeamRows):
    """Who is on a team sees who else is; accounts themselves are the superusers' business."""

    minimum_role = dict.fromkeys(["act", "add", "change", "delete"])
    form = UserEditForm
    add_form = UserAddForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["email", "name", "is_active", "is_staff", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["email", "name"]
    ordering = ["email"]
    filter_horizontal = []
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("May", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Seen", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]
    fieldsets_for_others = [(None, {"fields": ["email", "name", "is_active", "last_login"]})]
    inlines = [MembershipInline]
    actions_detail = ["take_second_factors_away"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        if request.user.is_superuser:
            return User._default_manager.order_by("email")
        mine = Membership.objects.filter(team__in=teams_where(request, Role.VIEWER))
        return User._default_manager.filter(pk__in=mine.values("user_id")).order_by("email")

    def may(self, request: HttpRequest, deed: str, obj: Any = None) -> bool:
        if request.user.is_superuser:
            return True
        if deed != "view":
            return False
        mine = teams_where(request, Role.VIEWER)
        return bool(mine) and (
            not isinstance(obj, User) or Membership.objects.filter(team__in=mine, user=obj).exists()
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        # Without the password: to whoever may only look, Django shows its hash.
        return super().get_fieldsets(request, obj) if request.user.is_superuser else self.fieldsets_for_others

    def save_model(self, request: HttpRequest, obj: User, form: forms.ModelForm, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and "is_active" in form.changed_data and not obj.is_active:
            close_sessions(obj)  # or they would be open again with the account

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        last = isinstance(obj, User) and is_last_superuser(obj)
        return super().has_delete_permission(request, obj) and not last

    @action(
        description="Take second factors away",
        url_path="take-second-factors-away",
        permissions=["change"],
        dialog=asked(
            "Take this person's second factors away?",
            "For somebody who has lost theirs and their recovery codes. They are logged out everywhere, and sign in "
            "with their password alone until they set up new ones: be sure that it is they who ask.",
            "Take away",
        ),
    )
    def take_second_factors_away(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        user = chosen(self, request, object_id).get()
        count = take_second_factors_away(user)
        self.log_change(request, user, "Took second factors away.")
        messages.success(request, f"{count} second factor{'s' * (count != 1)} taken away.")
        return shown("accounts_user", object_id)


@admin.register(Team)
class TeamAdmin(TeamRows):
    team_path = "pk"
    minimum_role = dict.fromkeys(["add", "delete"])
    list_display = ["name", "slug", "created_at"]
    search_fields = ["name", "slug"]
    inlines = [MembershipInline]

    def get_prepopulated_fields(self, request: HttpRequest, obj: Team | None = None) -> dict[str, list[str]]:
        return {} if obj else {"slug": ["name"]}

    def get_readonly_fields(self, request: HttpRequest, obj: Team | None = None) -> list[str]:
        return [] if request.user.is_superuser else ["slug"]  # programs name the team by it


@admin.register(ApiKey)
class ApiKeyAdmin(ToLookAt, TeamRows):
    """Made over the API, which shows each once; looked at and revoked here."""

    minimum_role = {"view": Role.ADMIN, "act": Role.ADMIN}
    list_display = [
        "name",
        "prefix",
        "team",
        "shown_scopes",
        "created_by",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ]
    list_filter = ["team"]
    search_fields = ["name", "prefix"]
    list_select_related = ["team", "created_by"]
    ordering = ["-id"]
    fields = [
        "name", "prefix", "team", "shown_scopes", "created_by", "created_at", "expires_at", "last_used_at",
        "revoked_at",
    ]  # fmt: skip
    readonly_fields = fields
    actions = ["revoke_selected"]
    actions_detail = ["revoke_one"]

    @display(description="Scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.action(description="Revoke", permissions=["act"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        messages.success(request, f"Revoked {revoke_keys(queryset, read_clock())}.")

    @action(
        description="Revoke",
        url_path="revoke",
        permissions=["act"],
        dialog=asked("Revoke this key?", "Its next request is refused. It cannot be undone.", "Revoke"),
    )
    def revoke_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        self.revoke_selected(request, chosen(self, request, object_id))
        return shown("accounts_apikey", object_id)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(SuperusersOnly):
    """To look at: when did each last run? The entries come from `celeryconfig` and would be put back."""

    list_display = ["name", "task", "enabled", "last_run_at", "total_run_count"]
    search_fields = ["name", "task"]
    ordering = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ToLookAt, TeamRows):
    """Superusers see all of it; what is of no team, such as people and regions, they alone."""

    minimum_role = {"view": Role.ADMIN}  # as the API has it
    list_display = ["at", "actor", "operation", "kind", "name", "object_id", "team"]
    list_filter = ["kind", "operation", "actor_kind"]
    search_fields = ["actor", "name", "request_id"]
    list_select_related = ["team"]
    fields = [
        "at", "actor", "actor_kind", "user_id", "api_key_id", "request_id", "operation", "kind", "name", "object_id",
        "team", "shown_changes",
    ]  # fmt: skip
    readonly_fields = ["shown_changes"]

    @display(description="Changes")
    def shown_changes(self, entry: AuditEntry) -> str:
        rows = format_html_join(
            "",
            '<tr><td class="pr-4">{}</td><td class="pr-4 break-all">{}</td><td class="break-all">{}</td></tr>',
            (
                (column, json.dumps(change["before"]), json.dumps(change["after"]))
                if isinstance(change, dict)
                else (column, "", change)
                for column, change in entry.changes.items()
            ),
        )
        return format_html(
            '<table class="w-full text-left"><thead><tr><th>Column</th><th>Before</th><th>After</th></tr></thead>'
            "<tbody>{}</tbody></table>",
            rows,
        )
