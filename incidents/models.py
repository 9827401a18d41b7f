"""What it means: an incident from the change to down until the change back, and all that was said in between."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from notifications.messages import SEVERITIES


class Incident(models.Model):
    class Status(models.TextChoices):
        OPEN = "open"
        ACKNOWLEDGED = "acknowledged"
        RESOLVED = "resolved"

    class Resolution(models.TextChoices):
        RECOVERED = "recovered"
        BY_PERSON = "by_person", "by a person"
        PAUSED = "paused", "monitor paused"
        DELETED = "deleted", "monitor deleted"

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    # A monitor may be deleted and its history still be asked for: the name and the URL are kept here.
    monitor = models.ForeignKey("monitors.Monitor", on_delete=models.SET_NULL, null=True, related_name="+")
    monitor_name = models.CharField(max_length=200)
    monitor_url = models.TextField("monitor URL")
    status = models.CharField(max_length=12, choices=Status, default=Status.OPEN)
    reason = models.CharField(max_length=12)
    detail = models.TextField(blank=True)
    # The monitor's when it opened.
    severity = models.CharField(
        max_length=8, default=SEVERITIES[0], choices=[(severity, severity) for severity in SEVERITIES]
    )
    evidence = models.JSONField(default=dict)
    opened_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.CharField(max_length=10, choices=Resolution, blank=True)

    class Meta:
        ordering = ["-opened_at", "-id"]
        indexes = [
            models.Index(fields=["team", "-opened_at", "-id"], name="incident_team_newest"),
            models.Index(fields=["monitor", "-opened_at"], name="incident_of_monitor"),
        ]
        constraints = [
            # At most one open incident per monitor, whoever opens it and however often.
            models.UniqueConstraint(
                fields=["monitor"], condition=Q(resolved_at__isnull=True), name="incident_one_open"
            ),
            models.CheckConstraint(
                condition=Q(status="resolved", resolved_at__isnull=False)
                | (~Q(status="resolved") & Q(resolved_at__isnull=True)),
                name="incident_resolved_has_a_time",
            ),
            models.CheckConstraint(
                condition=Q(resolved_at__isnull=True) | Q(resolved_at__gte=F("opened_at")),
                name="incident_forward",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.monitor_name} down ({self.reason})"


class IncidentEvent(models.Model):
    """A line of an incident's timeline."""

    class Kind(models.TextChoices):
        OPENED = "opened"
        ACKNOWLEDGED = "acknowledged"
        COMMENTED = "commented"
        RESOLVED = "resolved"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=12, choices=Kind)
    at = models.DateTimeField(default=timezone.now)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    text = models.TextField(blank=True, max_length=10_000)

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M:%S}"
