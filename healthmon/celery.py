"""The Celery app of everything that has Django: beat, worker, notifier, and web when it publishes.

The prober's app is `healthmon.agent`, which has no Django.
"""

import gc
import os
from functools import partial
from typing import Any

from celery import Celery, Task
from celery.signals import celeryd_after_setup, setup_logging, task_prerun
from django.db import close_old_connections

from healthmon.lib import audit, request_ids

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "healthmon.settings")


class Acting(Task):
    """What a task writes is written down as its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with audit.acting(partial(audit.system, self.name)):
            return self.run(*args, **kwargs)


app = Celery("healthmon", task_cls=Acting)
app.config_from_object("celeryconfig")
app.autodiscover_tasks(["monitors", "incidents", "notifications", "accounts"])
request_ids.follow_tasks()


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """Leave logging as settings.LOGGING made it; Celery would replace the root handler."""


@task_prerun.connect
def look_at_the_connection(*, sender: Any, **_: object) -> None:
    """Have each task begin on a connection that works, as Django does for each request.

    Left to Celery a thread keeps the one it has. After a restart of PostgreSQL every statement outside a transaction
    then failed, `relay` first of all, and no alert left the notifier for half an hour.
    """
    if not sender.request.is_eager:  # run in place: the connection is its caller's
        close_old_connections()


@celeryd_after_setup.connect
def leave_what_stays_to_itself(**_: object) -> None:
    """Take what is imported by now, 200,000 objects, out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()
