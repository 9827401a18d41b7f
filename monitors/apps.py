from django.apps import AppConfig
from django.db.models.signals import post_migrate


class MonitorsConfig(AppConfig):
    name = "monitors"
    verbose_name = "Monitoring"

    def ready(self) -> None:
        post_migrate.connect(make_ready, sender=self)


def make_ready(**_: object) -> None:
    """After a migration, and so at every start: the rows every system begins with, and a partition for today.

    The latter also after three weeks switched off, when beat's hourly look would come too late for the first result.
    """
    from django.conf import settings

    from healthmon.lib.clock import now as read_clock
    from monitors import partitions
    from monitors.models import DEFAULT_REGION, Region, ScheduleClock

    now = read_clock()
    if not Region.objects.exists():
        Region.objects.get_or_create(slug=DEFAULT_REGION, defaults={"name": "Default"})
    ScheduleClock.objects.get_or_create(id=1, defaults={"dispatched_until": now, "ticked_at": now})
    partitions.keep(now.date(), settings.HEALTHMON_RAW_RETENTION_DAYS)
