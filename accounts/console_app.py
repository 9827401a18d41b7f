"""Apart from `accounts.apps`, where Django looks for the one configuration of this app."""

from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AdminConfig):
    default_site = "accounts.console.Console"
