"""Who is told? A pure decision over a message and what channels subscribe to."""

from collections.abc import Iterable
from dataclasses import dataclass

from notifications.messages import Message


@dataclass(frozen=True, slots=True)
class Interest:
    """A subscription as a value: `scope` is `all`, `tag` or `monitor`."""

    team_id: int
    channel_id: int
    scope: str
    tag: str = ""
    monitor_id: int | None = None


def recipients(message: Message, interests: Iterable[Interest]) -> set[int]:
    """This will return the ids of the channels that are to hear of a message."""
    return {
        interest.channel_id
        for interest in interests
        if interest.team_id == message.team_id and _matches(message, interest)
    }


def _matches(message: Message, interest: Interest) -> bool:
    if interest.scope == "tag":
        return interest.tag in message.tags
    if interest.scope == "monitor":
        return message.monitor_id is not None and interest.monitor_id == message.monitor_id
    return True
