from django.apps import AppConfig

from notifications import metrics


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        metrics.register()
