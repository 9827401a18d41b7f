from rest_framework.routers import SimpleRouter

from notifications.views import ChannelViewSet, DeliveryViewSet, SubscriptionViewSet

router = SimpleRouter()
router.register("channels", ChannelViewSet, basename="channel")
router.register("subscriptions", SubscriptionViewSet, basename="subscription")
router.register("deliveries", DeliveryViewSet, basename="delivery")
urlpatterns = router.urls
