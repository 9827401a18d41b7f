from rest_framework.routers import SimpleRouter

from monitors.views import MonitorViewSet, RegionViewSet

router = SimpleRouter()
router.register("monitors", MonitorViewSet, basename="monitor")
router.register("regions", RegionViewSet, basename="region")
urlpatterns = router.urls
