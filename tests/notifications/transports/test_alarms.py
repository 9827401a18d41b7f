"""What an on-call service is to do: alarms are opened once, and closed by what ends them."""

import pytest

from notifications.transports.alarms import alarm
from tests.support.sending import MONITOR, envelope

OWN = "healthmon-msg_0123456789abcdef"

ALARMS = [
    # kind                  of an incident  of a monitor  what to do     with which
    ("opened",               True,           True,         "open",        "healthmon-incident-7"),
    ("reminder",             True,           True,         "open",        "healthmon-incident-7"),
    ("escalated",            True,           True,         "open",        "healthmon-incident-7"),
    ("acknowledged",         True,           True,         "acknowledge", "healthmon-incident-7"),
    ("resolved",             True,           True,         "close",       "healthmon-incident-7"),
    ("degraded",             False,          True,         "open",        "healthmon-degraded-3"),
    ("recovered",            False,          True,         "close",       "healthmon-degraded-3"),
    ("degraded",             False,          False,        "open",        OWN),
    ("flapping",             False,          True,         "open",        OWN),
    ("certificate_expiring", False,          True,         "open",        OWN),
    ("channel_failing",      False,          False,        "open",        OWN),
    ("test",                 False,          False,        "open",        OWN),
    ("resolved",             False,          False,        "open",        OWN),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "of_incident", "of_monitor", "action", "key"), ALARMS)
def test_opens_and_closes_what_belongs_together(kind, of_incident, of_monitor, action, key):
    told = alarm(
        envelope(
            kind=kind,
            incident_id=7 if of_incident else None,
            payload={"data": {"monitor": MONITOR if of_monitor else None}},
        )
    )
    assert (told.action, told.key) == (action, key)
