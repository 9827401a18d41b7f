"""What crosses into `incidents`: the moment a monitor's status moved, as a frozen value."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from notifications.messages import SEVERITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """`before` and `after` are monitor statuses (`new` `up` `degraded` `down` `paused`), or `deleted` after.

    `severity` is how bad the monitor's owner says it is: one of `notifications.messages.SEVERITIES`.
    `by_user_id` names the person whose deed this was, if it was one's. `evidence` is there when `after` is `down`:
    why it was decided, as JSON.
    """

    team_id: int
    monitor_id: int
    monitor_name: str
    monitor_url: str
    runbook_url: str
    tags: tuple[str, ...]
    before: str
    after: str
    at: datetime
    severity: str = SEVERITIES[0]
    reason: str = ""
    detail: str = ""
    evidence: dict[str, Any] | None = None
    by_user_id: int | None = None

    @property
    def opens(self) -> bool:
        return self.after == "down"

    @property
    def closes(self) -> bool:
        """Whatever is not down any more: it answers again, or nobody watches it."""
        return self.after != "down"
