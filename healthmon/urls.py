from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from accounts.pages import invitation
from healthmon import health
from incidents.views import acknowledge_by_link

api: list[URLPattern | URLResolver] = [
    path("", include("accounts.urls")),
    path("", include("monitors.urls")),
    path("", include("incidents.urls")),
    path("", include("notifications.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
]

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("account/", include("accounts.web_urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api)),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("acknowledge/<str:token>/", acknowledge_by_link, name="acknowledge"),
    path("invitation/<str:token>/", invitation, name="invitation"),
    path("healthz/live", health.live, name="live"),
    path("healthz/ready", health.ready, name="ready"),
    path("metrics", ExportToDjangoView, name="metrics"),
]

handler400 = "healthmon.lib.api.bad_request"
handler403 = "healthmon.lib.api.permission_denied"
handler404 = "healthmon.lib.api.not_found"
handler500 = "healthmon.lib.api.server_error"
