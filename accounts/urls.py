"""Below /api/v1/."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from accounts import audit, users, views

router = SimpleRouter()
router.register("teams", views.TeamViewSet, basename="team")
router.register("api-keys", views.ApiKeyViewSet, basename="api-key")
router.register("users", users.UserViewSet, basename="user")
router.register("audit", audit.AuditViewSet, basename="audit")

urlpatterns = [
    path("auth/token/", views.LoginView.as_view(), name="login"),
    path("auth/token/refresh/", views.RefreshView.as_view(), name="refresh"),
    path("auth/logout/", views.LogoutView.as_view(), name="logout"),
    path("auth/logout-everywhere/", views.LogoutEverywhereView.as_view(), name="logout-everywhere"),
    path("me/", views.MeView.as_view(), name="me"),
    path("me/password/", views.PasswordView.as_view(), name="password"),
    path("teams/<int:team_id>/members/", views.MembersView.as_view(), name="team-members"),
    path("teams/<int:team_id>/members/<int:user_id>/", views.MemberView.as_view(), name="team-member"),
    path("teams/<int:team_id>/invitations/", views.InvitationsView.as_view(), name="team-invitations"),
    path("teams/<int:team_id>/invitations/<int:pk>/", views.InvitationView.as_view(), name="team-invitation"),
    path("teams/<int:team_id>/invitations/<int:pk>/resend/", views.ResendView.as_view(), name="team-resend"),
    path("invitations/accept/", views.AcceptView.as_view(), name="accept"),
    path("", include(router.urls)),
]
