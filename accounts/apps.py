from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate

from healthmon.lib import audit


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "People"

    def ready(self) -> None:
        pre_migrate.connect(audit.uninstall, sender=self)
        post_migrate.connect(audit.install, sender=self)
