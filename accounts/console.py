"""Who enters the console, and which rows they find there: those of their teams, as their role on each allows.

Every `ModelAdmin` begins with `TeamRows` or `SuperusersOnly`, every inline with `TeamInline`; a test sees to it.
Django's own permissions and groups decide nothing here.
"""

from typing import Any
from urllib.parse import urlencode

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import auth, messages
from django.contrib.admin import RelatedFieldListFilter
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import FieldDoesNotExist, PermissionDenied
from django.db.models import Field, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from unfold.admin import ModelAdmin
from unfold.sites import UnfoldAdminSite

from accounts import second_factor
from accounts.models import Membership, Role, Team
from accounts.permissions import reaches

MINIMUM_ROLE = {
    "view": Role.VIEWER,
    "act": Role.RESPONDER,
    "add": Role.ADMIN,
    "change": Role.ADMIN,
    "delete": Role.ADMIN,
}


# --- who enters -------------------------------------------------------------------------------------------------


class Console(UnfoldAdminSite):
    """Staff, and of those with a second factor only whoever has shown it. Signing in is done on the account's pages."""

    def has_permission(self, request: HttpRequest) -> bool:
        known = getattr(request, "_may_enter", None)
        if known is None or known[0] != request.user.pk:
            known = request.user.pk, _may_enter(request)
            request._may_enter = known  # type: ignore[attr-defined]
        return known[1]

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        wanted = request.GET.get("next", "")
        after = wanted if url_has_allowed_host_and_scheme(wanted, None) else reverse("admin:index")
        user = request.user
        if self.has_permission(request):
            return redirect(after)
        if not user.is_authenticated:
            return redirect(f"{reverse('account_login')}?{urlencode({'next': after})}")
        if not user.is_staff:
            raise PermissionDenied("Your account may not enter the console. Ask an owner of your team.")
        if not second_factor.has_one(user):
            messages.warning(request, "The console needs a second factor. Set one up, and it lets you in.")
            return redirect("mfa_index")
        totp = Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists()
        shown_at = reverse("mfa_reauthenticate" if totp else "mfa_reauthenticate_webauthn")
        return redirect(f"{shown_at}?{urlencode({'next': after})}")

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        auth.logout(request)
        return redirect("account_login")

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return redirect("account_change_password")

    password_change_done = password_change

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        # The colours come from accounts/console.css: here they would be a <style> in each page, which the CSP refuses.
        return super().each_context(request) | {"colors": None}


def _may_enter(request: HttpRequest) -> bool:
    user = request.user
    if not (user.is_active and user.is_staff):
        return False
    if second_factor.was_shown(request):
        return True
    return not settings.HEALTHMON_REQUIRE_MFA and not second_factor.has_one(user)


# --- which rows -------------------------------------------------------------------------------------------------


def roles(request: HttpRequest) -> dict[int, Role]:
    """What the person is on each of their teams, by the team's id; asked once a request."""
    if not request.user.is_authenticated:
        return {}
    known = getattr(request, "_roles", None)
    if known is None or known[0] != request.user.pk:
        mine = Membership.objects.filter(user=request.user).values_list("team_id", "role")
        known = request.user.pk, {team: Role(role) for team, role in mine}
        request._roles = known  # type: ignore[attr-defined]
    return known[1]


def teams_where(request: HttpRequest, minimum: Role) -> list[int]:
    """The ids of the teams on which the person is that much or more."""
    return [team for team, role in roles(request).items() if reaches(role, minimum)]


class OwnRowsFilter(RelatedFieldListFilter):
    """Offers what its reader may see of the related rows."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list:
        ordering = self.field_admin_ordering(field, request, model_admin)
        mine = _visible(model_admin.admin_site, field.remote_field.model, request)
        return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to={"pk__in": mine})


def _visible(site: Any, model: type[Model], request: HttpRequest) -> QuerySet:
    """The rows of a model that its own page would list; none if it has no page."""
    try:
        return site.get_model_admin(model).get_queryset(request)
    except NotRegistered:
        return model._default_manager.none()


class _OwnChoices(BaseModelAdmin):
    """Foreign keys lead to what the person may see, and `team` to where they may add."""

    def get_field_queryset(self, db: Any, db_field: Any, request: HttpRequest) -> QuerySet | None:
        if request.user.is_superuser:
            return super().get_field_queryset(db, db_field, request)
        model = db_field.remote_field.model
        if model is Team:
            minimum = self.minimum("add")
            mine = teams_where(request, minimum) if minimum else []
            return Team.objects.filter(pk__in=mine).order_by("name")
        return _visible(self.admin_site, model, request)

    def minimum(self, deed: str) -> Role | None:
        """What a deed takes; None: a superuser."""
        return MINIMUM_ROLE[deed]


class TeamRows(_OwnChoices, ModelAdmin):
    """
    Rows of teams. Somebody else's do not exist here: not in a list, not in a choice, and at their address is a 404.

    team_path: from the model to its team, as in `accounts.scoping.TeamScoped`.
    minimum_role: by deed ("view", "act", "add", "change", "delete"), where it is not that of MINIMUM_ROLE; None for
        superusers alone.
    """

    team_path = "team"
    minimum_role: dict[str, Role | None] = {}

    def minimum(self, deed: str) -> Role | None:
        return self.minimum_role.get(deed, MINIMUM_ROLE[deed])

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        minimum = self.minimum("view")
        return rows.filter(**{f"{self.team_path}__in": teams_where(request, minimum) if minimum else []})

    def get_ordering(self, request: HttpRequest) -> Any:
        return super().get_ordering(request) or self.model._meta.ordering or ["-pk"]  # completions have pages

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model:
        row = super().get_object(request, object_id, from_field)
        if row is None:
            raise Http404
        return row

    def may(self, request: HttpRequest, deed: str, obj: Any = None) -> bool:
        """Whether the person may do this to a row; to any at all, if none is named."""
        minimum = self.minimum(deed)
        if request.user.is_superuser:
            return True
        if minimum is None:
            return False
        if obj is None or (isinstance(obj, Model) and obj.pk is None):
            return bool(teams_where(request, minimum))
        if not isinstance(obj, Model):  # unfold asks about deeds with the id from the address
            obj = self.get_object(request, str(obj))
        role = roles(request).get(self.team_of(obj))
        return role is not None and reaches(role, minimum)

    def team_of(self, obj: Any) -> int:
        *steps, last = self.team_path.split("__")
        for step in steps:
            obj = getattr(obj, step)
        return obj.pk if last == "pk" else getattr(obj, f"{last}_id")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "view", obj)

    def has_act_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "act", obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete", obj)

    def get_list_filter(self, request: HttpRequest) -> list:
        return [
            (each, OwnRowsFilter) if isinstance(each, str) and _is_relation(self.model, each) else each
            for each in super().get_list_filter(request)
        ]

    def response_action(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """Django asks about an action once; here it is asked about every row that was chosen."""
        if not request.user.is_superuser and (deeds := self._deeds(request)):
            chosen = queryset
            if request.POST.get("select_across", "0") == "0":
                chosen = queryset.filter(pk__in=request.POST.getlist("_selected_action"))
            for deed in deeds:
                minimum = self.minimum(deed)
                allowed = teams_where(request, minimum) if minimum else []
                if chosen.exclude(**{f"{self.team_path}__in": allowed}).exists():
                    messages.error(
                        request, "Nothing was done: of some of these teams you are not enough for it."
                    )
                    return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset)

    def _deeds(self, request: HttpRequest) -> list[str]:
        """What permissions the action takes that was chosen; empty for one that is not offered."""
        names = request.POST.getlist("action")
        offered = self.get_actions(request)
        # Whichever of the page's two forms it came from: each that is named is judged.
        found = [offered[name][0] for name in names if name in offered]
        return [deed for action in found for deed in getattr(action, "allowed_permissions", ["change"])]


class TeamInline(_OwnChoices):
    """Rows inside of a page of `TeamRows`: looked at and changed by whoever may do so to what they are part of."""

    def _whole(self) -> Any:
        return self.admin_site.get_model_admin(self.parent_model)  # type: ignore[attr-defined]

    def _may_change(self, request: HttpRequest, whole: Any) -> bool:
        if whole is None or whole.pk is None:
            return self._whole().has_add_permission(request)
        return self._whole().has_change_permission(request, whole)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._whole().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)


class SuperusersOnly(ModelAdmin):
    """Rows of the whole installation, which belong to no team."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.none()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser


def _is_relation(model: type[Model], path: str) -> bool:
    try:
        field: Field = get_fields_from_path(model, path)[-1]
    except FieldDoesNotExist:
        return False
    return bool(field.is_relation)
