"""What of accounts is kept for a time."""

from datetime import datetime, timedelta

from accounts.models import AuditEntry

# The database itself refuses to delete a younger entry (accounts/migrations/0002_audit.py). A day more than it asks
# for, so that its clock and ours need not agree.
AUDIT_KEPT = timedelta(days=365 + 1)


def audit(now: datetime) -> int:
    """This will delete the entries that are older than a year, and return how many."""
    count, _ = AuditEntry.objects.filter(at__lt=now - AUDIT_KEPT).delete()
    return count
