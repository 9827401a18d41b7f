"""What is asked of subscriptions: rows as values, and who would be told."""

from datetime import time

import pytest

from notifications import selectors
from notifications.messages import Message
from notifications.models import Channel
from notifications.routing import Interest
from tests.support.people import acme, globex
from tests.support.watching import NOON, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db

OPENED = {"kind": "opened", "at": NOON, "monitor_id": 1}


def test_hands_over_subscriptions_as_they_are(django_assert_num_queries):
    hook, theirs, shop = webhook(acme()), webhook(globex()), monitor(acme())
    subscribed(hook, scope="all")
    subscribed(
        hook, scope="monitor", monitor=shop, kinds=["opened"], min_severity="warning", days=[0, 6],
        from_time=time(22), until_time=time(6), time_zone="Europe/Berlin",
    )  # fmt: skip
    subscribed(theirs, scope="tag", tag="eu")
    first, second, third = (row.id for row in hook.subscriptions.model.objects.order_by("id"))
    teams = {acme().id, globex().id}
    with django_assert_num_queries(1):
        found = selectors.interests(teams)
    assert found == [
        Interest(acme().id, hook.id, "all", subscription_id=first),
        Interest(
            acme().id, hook.id, "monitor", monitor_id=shop.id, kinds=("opened",), min_severity="warning", days=(0, 6),
            from_time=time(22), until_time=time(6), time_zone="Europe/Berlin", subscription_id=second,
        ),
        Interest(globex().id, theirs.id, "tag", "eu", subscription_id=third),
    ]  # fmt: skip
    assert {interest.team_id for interest in selectors.interests([globex().id])} == {globex().id}


def test_says_of_every_channel_whether_it_would_be_told(django_assert_num_queries):
    told, silent = subscribed(webhook(acme()), scope="all"), webhook(acme())
    last_resort = webhook(acme())
    Channel.objects.filter(pk=last_resort.pk).update(for_owners=True)
    subscribed(webhook(globex()), scope="all")
    message = Message(team_id=acme().id, **OPENED)
    channels = list(selectors.channels(acme().id).order_by("id"))
    with django_assert_num_queries(1):
        found = selectors.recipients(message, channels)
    assert [(each.channel, each.told, each.why) for each in found] == [
        (told.id, True, "It hears of all monitors."),
        (silent.id, False, "No subscription of it names this monitor."),
        (last_resort.id, False, "It hears of failing channels, where no other channel can tell of them."),
    ]


@pytest.mark.parametrize("reason", ["", "It answered 410."])
def test_a_channel_that_is_disabled_is_told_nothing(reason):
    hook = subscribed(webhook(acme()), scope="all")
    Channel.objects.filter(pk=hook.pk).update(enabled=False, disabled_reason=reason)
    message = Message(team_id=acme().id, **OPENED)
    [found] = selectors.recipients(message, list(selectors.channels(acme().id)))
    assert (found.told, found.why) == (False, f"It is disabled: {reason or 'by hand.'}")
    assert found.subscription == hook.subscriptions.get().id, "by which it would be told"
