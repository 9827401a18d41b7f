from rest_framework.routers import SimpleRouter

from monitors.views import MonitorViewSet, ProberViewSet, RegionViewSet

router = SimpleRouter()
router.register("monitors", MonitorViewSet, basename="monitor")
router.register("regions", RegionViewSet, basename="region")
router.register("probers", ProberViewSet, basename="prober")
urlpatterns = router.urls
