import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from typing import Any

import certifi
import pytest

from healthmon.lib.addresses import Guard
from healthmon.lib.sealing import new_key
from monitors.probing.loop import Loop
from monitors.probing.outcome import Outcome, Target
from monitors.probing.probe import Surroundings
from tests.support.target import TargetServer

LOCAL = Guard((ip_network("127.0.0.0/8"), ip_network("::1/128")))
KEY = new_key()


def make_target(url: str, **fields: Any) -> Target:
    """A target that is due now and urgent, unless told otherwise."""
    now = int(time.time())
    given = {
        "monitor_id": 1,
        "region": "default",
        "scheduled_at": now,
        "expires_at": now + 60,
        "urgent": True,
    } | fields
    return Target(url=url, **given)


def probe_all(
    targets: Sequence[Target], guard: Guard = LOCAL, ca_file: str = "", **options: Any
) -> list[Outcome]:
    """Run targets through a loop of their own, and return the outcomes in the order they came."""
    outcomes: list[Outcome] = []
    surroundings = Surroundings(guard, (KEY,), ca_file or certifi.where())
    loop = Loop(surroundings, outcomes.append, **options)
    loop.submit(targets)
    assert loop.drain(20), "the loop did not finish"
    return outcomes


@pytest.fixture
def look() -> Callable[..., Outcome]:
    """Probe one URL and return its outcome; `guard` and `ca_file` besides a target's fields."""

    def look(url: str, guard: Guard = LOCAL, ca_file: str = "", **fields: Any) -> Outcome:
        [outcome] = probe_all([make_target(url, **fields)], guard, ca_file)
        return outcome

    return look


@pytest.fixture
def target() -> Iterator[TargetServer]:
    with TargetServer() as server:
        yield server
