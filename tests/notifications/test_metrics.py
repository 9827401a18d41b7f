"""What /metrics says of deliveries."""

import pytest
from django.test import Client

from notifications import outbox
from notifications.messages import Message
from notifications.models import Channel, Delivery
from tests.support.watching import NOON, webhook

pytestmark = pytest.mark.django_db


def said() -> dict[str, float]:
    lines = Client().get("/metrics").content.decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines)
        if name.startswith(("healthmon_deliver", "healthmon_channels"))
    }


def test_counts_what_waits_and_what_is_dead(team):
    assert said() == {
        'healthmon_deliveries{status="pending"}': 0,
        'healthmon_deliveries{status="sending"}': 0,
        'healthmon_deliveries{status="dead"}': 0,
        "healthmon_delivery_overdue_seconds": 0,
        "healthmon_channels_failing": 0,
    }
    channel = webhook(team)
    for _ in range(3):
        outbox.enqueue_to(Message(kind="test", team_id=team.id, at=NOON), [channel.id], NOON)
    Delivery.objects.filter(pk=Delivery.objects.earliest("id").pk).update(status="dead")
    Channel.objects.update(failures=1)
    now = said()
    assert now['healthmon_deliveries{status="pending"}'] == 2
    assert now['healthmon_deliveries{status="dead"}'] == 1
    assert now["healthmon_delivery_overdue_seconds"] >= 3600
    assert now["healthmon_channels_failing"] == 1
