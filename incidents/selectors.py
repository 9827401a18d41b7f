"""What people ask of incidents."""

from datetime import datetime

from incidents.models import Incident


def count_opened(monitor_id: int, since: datetime, until: datetime) -> int:
    """This will count a monitor's incidents opened in (since, until]."""
    return Incident.objects.filter(monitor_id=monitor_id, opened_at__gt=since, opened_at__lte=until).count()
