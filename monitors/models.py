"""What is watched, where from, how it stands, and what was seen.

Hot rows are narrow: `RegionState` is rewritten at every result and has no index on what changes; `Result` is
only ever inserted, into a table partitioned by day. `Monitor` changes when people change it, or its status moves.
"""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from healthmon.lib.audit import Audited
from monitors.probing import PROBES
from monitors.probing.outcome import Reason
from monitors.state import Status
from notifications.messages import SEVERITIES

# Divisors of a day, so that slots fall on the same seconds every day.
INTERVALS = (5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 21600, 43200, 86400)
KINDS = tuple(PROBES)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CONNECTIONS = ("fresh", "reuse")
MAX_TIMEOUT_SECONDS = 60
MAX_BODY_CHARS = 65_536
DEFAULT_REGION = "default"


def choices_of(words) -> list[tuple[str, str]]:
    return [(str(word), str(word).replace("_", " ")) for word in words]


class Region(models.Model):
    """Where probers stand. Its slug names two queues: `urgent.<slug>` and `probe.<slug>`."""

    id = models.SmallAutoField(primary_key=True)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=100)
    enabled = models.BooleanField(default=True, help_text="Unset, nothing is dispatched to it.")

    audited = Audited("region", team="", label="slug")

    def __str__(self) -> str:
        return self.name


class Prober(models.Model):
    """A prober process that has been heard of, through the broker and a worker: proof that the way is open."""

    region = models.CharField(max_length=40)
    name = models.CharField(max_length=200, unique=True)
    seen_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["seen_at"], name="prober_seen_at")]

    def __str__(self) -> str:
        return f"{self.name} ({self.region})"


class Monitor(models.Model):
    """What a team wants watched.

    Due at every second t with `t mod interval_seconds = offset_seconds`; no row is written to schedule a check.
    """

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    # What whoever keeps monitors in a file calls it: there is one of that name in a team, however often it is sent.
    external_id = models.CharField(
        max_length=200,
        null=True,
        blank=True,
        help_text="What your own files or programs call it; once in a team.",
    )
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, default="http", choices=choices_of(KINDS))
    url = models.TextField("URL", help_text="http:// or https://, without user name and password.")
    method = models.CharField(max_length=10, default="GET", choices=choices_of(METHODS))
    headers = models.JSONField(
        default=dict, blank=True, help_text="Sent with the request, readable by the team."
    )
    sealed_headers = models.TextField(
        blank=True, editable=False
    )  # secret ones: HEALTHMON_FIELD_KEYS opens it
    body = models.TextField(blank=True, max_length=MAX_BODY_CHARS)
    interval_seconds = models.IntegerField(
        default=30, choices=[(seconds, f"{seconds} s") for seconds in INTERVALS]
    )
    # Fibonacci hashing: ids in sequence land evenly over the interval. The database computes it, so that it
    # cannot disagree with the id or the interval, whoever writes the row.
    offset_seconds = models.GeneratedField(
        expression=((F("id") * 2_654_435_761).bitand(4_294_967_295) * F("interval_seconds")).bitrightshift(
            32
        ),
        output_field=models.IntegerField(),
        db_persist=True,
    )
    timeout_seconds = models.FloatField(
        default=10, validators=[MinValueValidator(0.1), MaxValueValidator(MAX_TIMEOUT_SECONDS)]
    )
    expected_status = models.CharField(max_length=100, default="200-299", help_text="Such as 200-299,301.")
    follow_redirects = models.BooleanField(default=True)
    verify_tls = models.BooleanField("verify TLS", default=True)
    degraded_after_ms = models.PositiveIntegerField(
        null=True, blank=True, help_text="Slower than this is degraded. Empty: never."
    )
    failures_to_open = models.PositiveSmallIntegerField(
        default=2, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    successes_to_close = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    recheck_seconds = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
        help_text="A failure is looked at again this soon, out of turn.",
    )
    connection = models.CharField(max_length=5, default="fresh", choices=choices_of(CONNECTIONS))
    severity = models.CharField(
        max_length=8,
        default=SEVERITIES[0],
        choices=choices_of(SEVERITIES),
        help_text="How bad it is when this is down. Subscriptions may ask for this bad or worse.",
    )
    tags = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    description = models.TextField(blank=True, max_length=5000)
    runbook_url = models.CharField("runbook URL", max_length=2048, blank=True)
    enabled = models.BooleanField(default=True)
    status = models.CharField(max_length=8, default=Status.NEW, choices=choices_of(Status), editable=False)
    status_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    audited = Audited("monitor", machine=frozenset({"status", "status_changed_at"}), label="name")

    class Meta:
        indexes = [
            # What the tick asks: which monitors have this interval and this offset.
            models.Index(
                fields=["interval_seconds", "offset_seconds"], condition=Q(enabled=True), name="monitor_due"
            ),
            models.Index(fields=["team", "status"], name="monitor_team_status"),
            GinIndex(fields=["tags"], name="monitor_tags"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["team", "external_id"], name="monitor_external_id_once"),
            models.CheckConstraint(
                condition=Q(interval_seconds__in=INTERVALS), name="monitor_interval_in_the_list"
            ),
            models.CheckConstraint(
                condition=Q(timeout_seconds__gt=0)
                & Q(timeout_seconds__lte=F("interval_seconds"))
                & Q(timeout_seconds__lte=MAX_TIMEOUT_SECONDS),
                name="monitor_timeout_within_interval",
            ),
            models.CheckConstraint(
                condition=Q(failures_to_open__gte=1)
                & Q(successes_to_close__gte=1)
                & Q(recheck_seconds__gte=1),
                name="monitor_thresholds_positive",
            ),
            models.CheckConstraint(
                condition=Q(enabled=True) ^ Q(status=Status.PAUSED), name="monitor_paused_is_not_enabled"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class RegionState(models.Model):
    """How a monitor stands as seen from one region. The row is also the order to probe it from there.

    Of what changes only `recheck_at`, almost always null, is indexed, and partially: updates stay heap-only.
    """

    pk = models.CompositePrimaryKey("monitor_id", "region_id")
    # The primary key begins with it; an index of its own would only be one more to keep.
    monitor = models.ForeignKey(Monitor, on_delete=models.CASCADE, related_name="states", db_index=False)
    region = models.ForeignKey(Region, on_delete=models.PROTECT, related_name="+", db_index=False)
    status = models.CharField(max_length=8, default=Status.NEW, choices=choices_of(Status))
    failures = models.SmallIntegerField(default=0)  # in a row
    successes = models.SmallIntegerField(default=0)  # in a row
    slows = models.SmallIntegerField(default=0)  # in a row
    # scheduled_at of the newest result that told something; results that all is well pass a quiet state by.
    seen_until = models.DateTimeField(null=True)
    recheck_at = models.DateTimeField(null=True)
    certificate_expires_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["recheck_at"], condition=Q(recheck_at__isnull=False), name="state_recheck"),
        ]

    def __str__(self) -> str:
        return f"monitor {self.monitor_id} from region {self.region_id}: {self.status}"


class Result(models.Model):
    """The row kept of an Outcome. Its identity is the slot: however often one is delivered, it counts once.

    The migration makes the table: partitioned by day on `scheduled_at`, `reason` a PostgreSQL enum, columns
    ordered so that none is padded.
    """

    pk = models.CompositePrimaryKey("monitor_id", "scheduled_at", "region_id")
    scheduled_at = models.DateTimeField()
    started_at = models.DateTimeField()
    # No foreign keys in the database: they would cost a look-up each, thousands of times a second.
    monitor = models.ForeignKey(
        Monitor, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    total_ms = models.FloatField(null=True)
    dns_ms = models.FloatField(null=True)
    connect_ms = models.FloatField(null=True)
    tls_ms = models.FloatField(null=True)
    first_byte_ms = models.FloatField(null=True)
    reason = models.CharField(max_length=12, choices=choices_of(Reason))
    status_code = models.SmallIntegerField(null=True)
    region = models.ForeignKey(
        Region, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    urgent = models.BooleanField(default=False)  # out of turn: a recheck or a check now
    reused = models.BooleanField(default=False)  # over a connection that was open already
    detail = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"monitor {self.monitor_id} at {self.scheduled_at}: {self.reason}"


class DailyCount(models.Model):
    """How many slots of a monitor were executed on a UTC day that is over; urgent and missed ones are none."""

    pk = models.CompositePrimaryKey("monitor_id", "day")
    # No foreign key in the database, as of results: counts of monitors that are gone leave with their age.
    monitor = models.ForeignKey(
        Monitor, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    day = models.DateField()
    executed = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["day"], name="daily_count_day")]

    def __str__(self) -> str:
        return f"monitor {self.monitor_id} on {self.day}: {self.executed}"


class StatusPeriod(models.Model):
    """A stretch in which a monitor's status and cadence stayed as they were; uptime and coverage are sums of these."""

    monitor = models.ForeignKey(Monitor, on_delete=models.CASCADE, related_name="periods", db_index=False)
    status = models.CharField(max_length=8, choices=choices_of(Status))
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    interval_seconds = models.IntegerField()
    regions = models.PositiveSmallIntegerField()  # how many probed it: slots are per region

    class Meta:
        indexes = [models.Index(fields=["monitor", "started_at"], name="period_of_monitor")]
        constraints = [
            # A monitor has one present: two transitions at once cannot both open one.
            models.UniqueConstraint(
                fields=["monitor"], condition=Q(ended_at__isnull=True), name="period_one_open"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("started_at")), name="period_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"monitor {self.monitor_id} {self.status} from {self.started_at}"


class ScheduleClock(models.Model):
    """One row: slots up to and including this second have been dispatched. It only moves forward."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    dispatched_until = models.DateTimeField()
    ticked_at = models.DateTimeField()  # when a tick last finished; readiness asks
    shed = models.BigIntegerField(default=0)  # slots not dispatched because their queue was full, ever

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="clock_is_one_row")]

    def __str__(self) -> str:
        return f"dispatched until {self.dispatched_until}"
