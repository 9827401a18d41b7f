"""Below /api/v1/."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from accounts import views

router = SimpleRouter()
router.register("teams", views.TeamViewSet, basename="team")

urlpatterns = [
    path("auth/token/", views.LoginView.as_view(), name="login"),
    path("auth/token/refresh/", views.RefreshView.as_view(), name="refresh"),
    path("auth/logout/", views.LogoutView.as_view(), name="logout"),
    path("me/", views.MeView.as_view(), name="me"),
    path("teams/<int:team_id>/members/", views.MembersView.as_view(), name="team-members"),
    path("", include(router.urls)),
]
