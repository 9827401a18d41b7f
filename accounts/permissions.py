"""What a role may do, and what a key. Reading takes a viewer and writing an admin, unless the view says otherwise.

A key acts as a role, and never as an owner: `read` as a viewer, `write` as an admin. `incidents` reads as a responder
does and, of what a responder may write, does that which is about incidents. What is about people and keys is done
by people alone, whatever the scope: a key that makes keys is one that nobody can take back.
"""

from collections.abc import Collection
from typing import Any

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAuthenticated
from rest_framework.request import Request

from accounts.models import ApiKey, Role, Scope

ASCENDING = (Role.VIEWER, Role.RESPONDER, Role.ADMIN, Role.OWNER)
ACTS_AS = {Scope.READ: Role.VIEWER, Scope.INCIDENTS: Role.RESPONDER, Scope.WRITE: Role.ADMIN}
OF_INCIDENTS = frozenset({"acknowledge", "resolve", "comment", "replay", "replay_all"})
NO_KEYS = "This takes a person who is logged in, not an API key."


def reaches(role: Role, minimum: Role) -> bool:
    return ASCENDING.index(role) >= ASCENDING.index(minimum)


def acts_as(key: ApiKey) -> Role:
    """The highest role that a key's scopes come to."""
    return max((ACTS_AS[Scope(scope)] for scope in key.scopes), key=ASCENDING.index)


def scopes_allow(scopes: Collection[str], action: str, minimum: Role, safe: bool) -> bool:
    """Whether a key of these scopes may do what takes this role."""
    if safe:
        return any(reaches(ACTS_AS[Scope(scope)], minimum) for scope in scopes)
    if Scope.WRITE in scopes and reaches(ACTS_AS[Scope.WRITE], minimum):
        return True
    return Scope.INCIDENTS in scopes and action in OF_INCIDENTS and reaches(ACTS_AS[Scope.INCIDENTS], minimum)


class PersonOnly(IsAuthenticated):
    """People who are logged in; what views do that say nothing else, so that a new one is closed to keys."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, ApiKey):
            raise PermissionDenied(NO_KEYS)
        return super().has_permission(request, view)


class SuperusersOnly(PersonOnly):
    """Whoever runs the whole installation."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        if not request.user.is_superuser:
            raise PermissionDenied("This takes a superuser: whoever runs this healthmon.")
        return True


class RoleAllows(BasePermission):
    """
    For `TeamScoped` views: `minimum_role = {"acknowledge": Role.RESPONDER}` by action of a viewset, or by
    method ("post") of a plain view. Not named: viewer for safe methods, admin for all others.
    `people_only = True`: no key gets in.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        key = request.auth if isinstance(request.auth, ApiKey) else None
        if key and view.people_only:
            raise PermissionDenied(NO_KEYS)
        action = getattr(view, "action", None) or str(request.method).lower()
        safe = request.method in SAFE_METHODS
        minimum = view.minimum_role.get(action, Role.VIEWER if safe else Role.ADMIN)
        team = view.team  # a foreign one is a 404 before anything is said of roles
        if key:
            if not scopes_allow(key.scopes, action, minimum, safe):
                raise PermissionDenied(
                    f"The scopes of this key are {', '.join(key.scopes)}; this takes more, or a person."
                )
        elif not reaches(view.role, minimum):
            raise PermissionDenied(f"This takes the role {minimum}; yours on {team.slug} is {view.role}.")
        return True
