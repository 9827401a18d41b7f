"""The web process: gunicorn's way in."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "healthmon.settings")

from django.core.wsgi import get_wsgi_application

import healthmon.celery  # noqa: F401 - services publish through the default app

application = get_wsgi_application()
