"""Who hears of it: places to tell, what was to be told, and whether it got there."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from notifications.messages import KINDS
from notifications.transports import TRANSPORTS


def new_key() -> str:
    """This will return an idempotency key; webhooks send it as `webhook-id`, which must hold no dot."""
    return f"msg_{uuid.uuid4().hex}"


class Channel(models.Model):
    """Where a team wants to hear. `config` is what may be read; secrets are sealed beside it."""

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, choices=[(kind, kind) for kind in TRANSPORTS])
    config = models.JSONField(default=dict, blank=True)
    sealed_secrets = models.TextField(blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


class Subscription(models.Model):
    """What a channel hears of: every monitor of the team, those with a tag, or one."""

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
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(scope="all", tag="", monitor__isnull=True)
                | (Q(scope="tag", monitor__isnull=True) & ~Q(tag=""))
                | Q(scope="monitor", tag="", monitor__isnull=False),
                name="subscription_names_its_scope",
            ),
            models.UniqueConstraint(
                fields=["channel", "scope", "tag", "monitor"], nulls_distinct=False, name="subscription_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} hears of {self.tag or self.monitor or 'all'}"


class MessageRecord(models.Model):
    """A Message as it was worded when it happened. What is sent hours later still says what was true then."""

    team = models.ForeignKey("accounts.Team", on_delete=models.CASCADE, related_name="+")
    incident = models.ForeignKey("incidents.Incident", on_delete=models.CASCADE, null=True, related_name="+")
    kind = models.CharField(max_length=20, choices=[(kind, kind.replace("_", " ")) for kind in KINDS])
    subject = models.CharField(max_length=200)
    text = models.TextField()
    payload = models.JSONField()
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.subject


class Delivery(models.Model):
    """One message to one channel.

        pending ──lease──▶ sending ──settle──▶ sent
           ▲                  │ │
           └── failed, retry ─┘ └── permanent, or tries used up ──▶ dead ──replay──▶ pending

    `muted` ones were never to be sent: their channel was disabled when it happened.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        DEAD = "dead"
        MUTED = "muted"

    message = models.ForeignKey(MessageRecord, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="deliveries")
    # The same on every attempt, so that a receiver that was told twice can tell.
    key = models.CharField(max_length=40, unique=True, default=new_key, editable=False)
    status = models.CharField(max_length=7, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ["-id"]
        indexes = [
            # What relay asks: what is due, and whose lease ran out.
            models.Index(fields=["next_attempt_at"], condition=Q(status="pending"), name="delivery_due"),
            models.Index(fields=["leased_until"], condition=Q(status="sending"), name="delivery_leased"),
            models.Index(fields=["channel", "status"], name="delivery_channel_status"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["message", "channel"], name="delivery_once"),
            models.CheckConstraint(
                condition=~Q(status="pending") | Q(next_attempt_at__isnull=False),
                name="delivery_pending_is_due",
            ),
            models.CheckConstraint(
                condition=~Q(status="sending") | Q(leased_until__isnull=False),
                name="delivery_sending_is_leased",
            ),
            models.CheckConstraint(
                condition=~Q(status="sent") | Q(sent_at__isnull=False), name="delivery_sent_has_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message} to {self.channel}: {self.status}"
