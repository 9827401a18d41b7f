"""What machines do: remind of what nobody has acknowledged."""

from celery import shared_task

from healthmon.lib.clock import now as read_clock
from incidents import services


@shared_task(name="incidents.tasks.remind")
def remind(**_future) -> None:
    services.remind(read_clock())
