"""What a role may do. Reading takes a viewer and writing an admin, unless the view says otherwise."""

from typing import Any

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.models import Role

ASCENDING = (Role.VIEWER, Role.RESPONDER, Role.ADMIN, Role.OWNER)


def reaches(role: Role, minimum: Role) -> bool:
    return ASCENDING.index(role) >= ASCENDING.index(minimum)


class RoleAllows(BasePermission):
    """
    For `TeamScoped` views: `minimum_role = {"acknowledge": Role.RESPONDER}` by action of a viewset, or by
    method ("post") of a plain view. Not named: viewer for safe methods, admin for all others.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        action = getattr(view, "action", None) or str(request.method).lower()
        default = Role.VIEWER if request.method in SAFE_METHODS else Role.ADMIN
        minimum = view.minimum_role.get(action, default)
        if not reaches(view.role, minimum):
            raise PermissionDenied(
                f"This takes the role {minimum}; yours on {view.team.slug} is {view.role}."
            )
        return True
