from rest_framework.routers import SimpleRouter

from notifications.views import (
    ChannelViewSet,
    DeliveryViewSet,
    MessageTemplateViewSet,
    SubscriptionViewSet,
)

router = SimpleRouter()
router.register("channels", ChannelViewSet, basename="channel")
router.register("subscriptions", SubscriptionViewSet, basename="subscription")
router.register("deliveries", DeliveryViewSet, basename="delivery")
router.register("message-templates", MessageTemplateViewSet, basename="message-template")
urlpatterns = router.urls
