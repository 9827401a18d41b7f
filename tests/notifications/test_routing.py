"""Who is told: a table."""

from datetime import UTC, datetime

import pytest

from notifications.messages import Message
from notifications.routing import Interest, recipients

OPENED = Message(
    kind="opened", team_id=1, at=datetime(2026, 3, 1, tzinfo=UTC), monitor_id=3, tags=("prod", "shop")
)
NO_TAGS = Message(kind="opened", team_id=1, at=OPENED.at, monitor_id=3)
NO_MONITOR = Message(kind="resolved", team_id=1, at=OPENED.at)  # it was deleted

TABLE = [
    # message, what channels subscribe to, whom it reaches
    (OPENED, [], set()),
    (OPENED, [Interest(1, 10, "all")], {10}),
    (OPENED, [Interest(2, 10, "all")], set()),
    (OPENED, [Interest(1, 10, "tag", tag="prod")], {10}),
    (OPENED, [Interest(1, 10, "tag", tag="Prod")], set()),
    (OPENED, [Interest(1, 10, "tag", tag="pro")], set()),
    (OPENED, [Interest(2, 10, "tag", tag="prod")], set()),
    (OPENED, [Interest(1, 10, "monitor", monitor_id=3)], {10}),
    (OPENED, [Interest(1, 10, "monitor", monitor_id=4)], set()),
    (OPENED, [Interest(2, 10, "monitor", monitor_id=3)], set()),
    (OPENED, [Interest(1, 10, "all"), Interest(1, 10, "tag", tag="shop")], {10}),
    (OPENED, [Interest(1, 10, "all"), Interest(1, 11, "monitor", monitor_id=3)], {10, 11}),
    (NO_TAGS, [Interest(1, 10, "tag", tag="prod"), Interest(1, 11, "all")], {11}),
    (NO_TAGS, [Interest(1, 10, "tag", tag="")], set()),
    (NO_MONITOR, [Interest(1, 10, "monitor", monitor_id=3), Interest(1, 11, "monitor")], set()),
    (NO_MONITOR, [Interest(1, 10, "all")], {10}),
]


@pytest.mark.parametrize(("message", "interests", "reached"), TABLE)
def test_tells_whom_the_subscriptions_name(message, interests, reached):
    assert recipients(message, interests) == reached
