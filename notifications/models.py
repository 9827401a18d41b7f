"""Who hears of it: places to tell, what was to be told, and whether it got there."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from healthmon.lib.audit import Audited
from notifications.messages import KINDS, SEVERITIES
from notifications.transports import TRANSPORTS

KIND_CHOICES = [(kind, kind.replace("_", " ")) for kind in KINDS]
SEVERITY_CHOICES = [(severity, severity) for severity in SEVERITIES]


def new_key() -> str:
    """This will return an idempotency key; webhooks send it as `webhook-id`, which must hold no dot."""
    return f"msg_{uuid.uuid4().hex}"


class Channel(models.Model):
    """Where a team wants to hear. `config` is what may be read; secrets are sealed beside it.

    How it has been doing is written by the outbox: a streak of failures begins at `failing_since`.
    """

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, choices=[(kind, kind) for kind in TRANSPORTS])
    config = models.JSONField(default=dict, blank=True)
    sealed_secrets = models.TextField(blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True, editable=False)
    gather_seconds = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(300)],
        help_text="What happens within so many seconds is told as one message. 0: each event by itself.",
    )
    rate_per_minute = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="At most so many messages a minute; the others wait. Empty: no limit.",
    )
    reminder_minutes = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(10_080)],
        help_text="Say again that it is still down, this often, until somebody acknowledges. Empty: never.",
    )
    # What a bulkhead is put around: channels of one host fail together.
    destination = models.CharField(max_length=300, editable=False, default="")
    # The bucket of `rate_per_minute`: how much was in it, and when.
    tokens = models.FloatField(default=0, editable=False)
    tokens_at = models.DateTimeField(null=True, editable=False)
    last_success_at = models.DateTimeField(null=True, editable=False)
    failing_since = models.DateTimeField(null=True, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)  # in a row
    told_failing_at = models.DateTimeField(
        null=True, editable=False
    )  # when the owners were told of the streak
    # The last resort: mail to a team's owners, made by healthmon when no other channel is well.
    for_owners = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    audited = Audited(
        "channel",
        machine=frozenset(
            {
                "destination",
                "tokens",
                "tokens_at",
                "last_success_at",
                "failing_since",
                "failures",
                "told_failing_at",
            }
        ),
        label="name",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team"], condition=Q(for_owners=True), name="channel_for_owners_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


class Subscription(models.Model):
    """What a channel hears of: every monitor of the team, those with a tag, or one; of what, how bad, and when."""

    class Scope(models.TextChoices):
        ALL = "all"
        TAG = "tag"
        MONITOR = "monitor"

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="subscriptions")
    scope = models.CharField(max_length=7, choices=Scope, default=Scope.ALL)
    tag = models.CharField(max_length=50, blank=True)
    monitor = models.ForeignKey(
        "monitors.Monitor", on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    kinds = ArrayField(
        models.CharField(max_length=20, choices=KIND_CHOICES),
        default=list,
        blank=True,
        help_text="Of what. Empty: of everything but `degraded` and `recovered`.",
    )
    min_severity = models.CharField(
        max_length=8, choices=SEVERITY_CHOICES, default=SEVERITIES[-1], help_text="This bad or worse."
    )
    days = ArrayField(
        models.PositiveSmallIntegerField(validators=[MaxValueValidator(6)]),
        default=list,
        blank=True,
        help_text="On which days, 0 is Monday. Empty: every day.",
    )
    from_time = models.TimeField(
        null=True, blank=True, help_text="From this time of day. Empty: at any hour."
    )
    until_time = models.TimeField(
        null=True, blank=True, help_text="Until this time; before `from_time`, it is that of the next day."
    )
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="Whose clock, such as Europe/Berlin."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)  # the API's serializer saves it, and the console's form

    audited = Audited("subscription", team="channel_id", team_of="notifications_channel", label="tag")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(scope="all", tag="", monitor__isnull=True)
                | (Q(scope="tag", monitor__isnull=True) & ~Q(tag=""))
                | Q(scope="monitor", tag="", monitor__isnull=False),
                name="subscription_names_its_scope",
            ),
            models.CheckConstraint(
                condition=Q(from_time__isnull=True, until_time__isnull=True)
                | Q(from_time__isnull=False, until_time__isnull=False),
                name="subscription_hours_have_two_ends",
            ),
            models.UniqueConstraint(
                fields=[
                    "channel",
                    "scope",
                    "tag",
                    "monitor",
                    "kinds",
                    "min_severity",
                    "days",
                    "from_time",
                    "until_time",
                    "time_zone",
                ],
                nulls_distinct=False,
                name="subscription_once",
            ),  # fmt: skip
        ]

    def __str__(self) -> str:
        return f"{self.channel} hears of {self.tag or self.monitor or 'all'}"


class MessageRecord(models.Model):
    """A Message as it was worded when it happened. What is sent hours later still says what was true then."""

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    incident = models.ForeignKey("incidents.Incident", on_delete=models.CASCADE, null=True, related_name="+")
    kind = models.CharField(max_length=20, choices=KIND_CHOICES)
    severity = models.CharField(max_length=8, choices=SEVERITY_CHOICES, default=SEVERITIES[0])
    subject = models.CharField(max_length=200)
    text = models.TextField()
    payload = models.JSONField()
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.subject


class MessageTemplate(models.Model):
    """A team's own words for a kind of message; see `notifications.templates` for what may stand in it."""

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=20, choices=KIND_CHOICES)
    subject = models.CharField(max_length=500, blank=True, help_text="Empty: our words.")
    text = models.TextField(max_length=10_000, blank=True, help_text="Empty: our words.")
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    audited = Audited("message_template", label="kind")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "kind"], name="template_once")]

    def __str__(self) -> str:
        return f"{self.team}: {self.kind}"


class Delivery(models.Model):
    """One message to one channel.

        pending ──claim──▶ sending ──settle──▶ sent
           ▲                  │ │
           └── failed, retry ─┘ └── permanent, or tries used up ──▶ dead ──replay──▶ pending

    `muted` ones were never to be sent: their channel was disabled when it happened. Deliveries that are told as one
    message have one `lease`.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        DEAD = "dead"
        MUTED = "muted"

    message = models.ForeignKey(MessageRecord, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="deliveries")
    # Of its message: what a claim asks about without reading that.
    incident = models.ForeignKey("incidents.Incident", on_delete=models.CASCADE, null=True, related_name="+")
    kind = models.CharField(max_length=20, choices=KIND_CHOICES)
    # The same on every attempt, so that a receiver that was told twice can tell.
    key = models.CharField(max_length=40, unique=True, default=new_key, editable=False)
    status = models.CharField(max_length=7, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    lease = models.BigIntegerField(null=True)  # who may send it now; the number is the proof
    leased_until = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ["-id"]
        indexes = [
            # What a claim asks: what of a channel is due, whose lease ran out, what goes before what.
            models.Index(
                fields=["channel", "next_attempt_at", "id"],
                condition=Q(status="pending"),
                name="delivery_due",
            ),
            models.Index(fields=["leased_until"], condition=Q(status="sending"), name="delivery_leased"),
            models.Index(fields=["lease"], condition=Q(status="sending"), name="delivery_lease"),
            models.Index(
                fields=["incident", "channel"],
                condition=Q(status__in=["pending", "sending"]),
                name="delivery_in_order",
            ),
            models.Index(fields=["channel", "status"], name="delivery_channel_status"),
            models.Index(fields=["-id"], condition=Q(status="dead"), name="delivery_dead"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["message", "channel"], name="delivery_once"),
            models.CheckConstraint(
                condition=~Q(status="pending") | Q(next_attempt_at__isnull=False),
                name="delivery_pending_is_due",
            ),
            models.CheckConstraint(
                condition=~Q(status="sending") | Q(leased_until__isnull=False, lease__isnull=False),
                name="delivery_sending_is_leased",
            ),
            models.CheckConstraint(
                condition=~Q(status="sent") | Q(sent_at__isnull=False), name="delivery_sent_has_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message} to {self.channel}: {self.status}"


class DeliveryAttempt(models.Model):
    """One try, written when it begins: one that was cut short by a crash is there to be seen."""

    class Outcome(models.TextChoices):
        UNDER_WAY = "under_way", "under way"
        SENT = "sent"
        FAILED = "failed"
        CUT_SHORT = "cut_short", "cut short"

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="tries")
    started_at = models.DateTimeField()
    took_ms = models.PositiveIntegerField(null=True)
    outcome = models.CharField(max_length=9, choices=Outcome, default=Outcome.UNDER_WAY)
    detail = models.CharField(max_length=500, blank=True)  # what came back, without secrets

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.outcome} {self.started_at:%Y-%m-%d %H:%M:%S}"
