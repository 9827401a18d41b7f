"""The Celery app of everything that has Django: beat, worker, notifier, and web when it publishes.

The prober's app is `healthmon.agent`, which has no Django.
"""

import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "healthmon.settings")

app = Celery("healthmon")
app.config_from_object("celeryconfig")
app.autodiscover_tasks(["monitors", "notifications"])


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """Leave logging as settings.LOGGING made it; Celery would replace the root handler."""
