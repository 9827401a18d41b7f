"""What machines do about people: let go of what is past its time."""

import structlog
from celery import shared_task

from accounts import idempotency, pruning
from healthmon.lib.clock import now as read_clock

log = structlog.get_logger(__name__)


@shared_task(name="accounts.tasks.prune_audit")
def prune_audit(**_future) -> None:
    if pruned := pruning.audit(read_clock()):
        log.info("audit_pruned", count=pruned)


@shared_task(name="accounts.tasks.prune_answers")
def prune_answers(**_future) -> None:
    if pruned := idempotency.prune(read_clock()):
        log.info("answers_pruned", count=pruned)
