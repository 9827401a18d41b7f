from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, AuthenticationForm, UserChangeForm, UserCreationForm

from accounts.models import Membership, Team, User

# Roles are on the team, the schedule is in code, and sessions end by logging out or by a new password.
for model in (
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


class LoginForm(AuthenticationForm):
    def clean_username(self) -> str:
        return self.cleaned_data["username"].lower()


class _LowerCaseEmail(forms.ModelForm):
    def clean_email(self) -> str:
        return self.cleaned_data["email"].lower()


class UserAddForm(_LowerCaseEmail, UserCreationForm):
    class Meta:
        model = User
        fields = ["email", "name"]


class UserEditForm(_LowerCaseEmail, UserChangeForm):
    class Meta:
        model = User
        fields = "__all__"


admin.site.login_form = LoginForm


class MembershipInline(TabularInline):
    model = Membership
    fields = ["team", "user", "role"]
    autocomplete_fields = ["team", "user"]
    extra = 0


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
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
    inlines = [MembershipInline]


@admin.register(Team)
class TeamAdmin(ModelAdmin):
    list_display = ["name", "slug", "created_at"]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [MembershipInline]


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ModelAdmin):
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
