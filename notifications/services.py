"""What people do with channels, subscriptions, templates and deliveries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Team
from notifications import outbox
from notifications.models import Channel, Delivery, MessageTemplate, Subscription
from notifications.transports import TRANSPORTS

# People are told of what happens within so many seconds as one message, unless they choose otherwise.
GATHER_SECONDS = 3
# What may be chosen of a channel beside its name, its configuration and whether it is enabled.
HABITS = ("gather_seconds", "rate_per_minute", "reminder_minutes")


class ChannelOfOwners(Exception):
    """It is the team's last resort: healthmon says where it leads, and nobody deletes it."""


def validated(kind: str, config: Mapping[str, Any], kept: Channel | None = None) -> tuple[dict, dict]:
    """This will judge a channel's configuration and part it into what may be read and what is sealed.

    Secrets that `config` does not give are those the channel has; null takes away one that is not needed. Raises
    ConfigInvalid.
    """
    transport = TRANSPORTS[kind]
    given = dict(config)
    if kept is not None and kept.kind == kind:
        dropped = {s.name for s in transport.settings if s.default is None and given.get(s.name, "") is None}
        for name, secret in outbox.secrets_of(kept).items():
            if name not in dropped and (not given.get(name) or str(given[name]).startswith("***")):
                given[name] = secret
    clean = transport.validate(given)
    secrets = {name: clean.pop(name) for name in transport.secret_fields if name in clean}
    return clean, secrets


def habits_of(kind: str) -> dict[str, int | None]:
    """This will return how a new channel of a kind is told of things, where nothing else was said."""
    transport = TRANSPORTS[kind]
    return {
        "gather_seconds": 0 if transport.for_machines else GATHER_SECONDS,
        "rate_per_minute": transport.rate_per_minute,
        "reminder_minutes": None,
    }


@transaction.atomic
def create_channel(
    team: Team,
    name: str,
    kind: str,
    config: Mapping[str, Any],
    enabled: bool,
    now: datetime,
    **habits: int | None,
) -> tuple[Channel, dict]:
    """This will make a channel, and return it with its secrets: the only time they are shown. Raises ConfigInvalid.

    habits: those of HABITS that are not what suits its kind.
    """
    clean, secrets = validated(kind, config)
    channel = Channel.objects.create(
        team=team,
        name=name,
        kind=kind,
        config=clean,
        sealed_secrets=outbox.seal_secrets(team.id, secrets),
        destination=_destination(kind, clean | secrets),
        enabled=enabled,
        created_at=now,
        updated_at=now,
        **habits_of(kind) | habits,
    )
    return channel, secrets


@transaction.atomic
def update_channel(channel: Channel, changes: Mapping[str, Any], now: datetime) -> Channel:
    """This will change a channel's name, configuration, habits or whether it is enabled.

    Enabled again it is told what it has missed. Raises ConfigInvalid, and ChannelOfOwners where the configuration
    is not anybody's to change.
    """
    channel = Channel.objects.select_for_update(no_key=True).get(pk=channel.pk)
    back = changes.get("enabled") is True and not channel.enabled
    if "config" in changes:
        clean, secrets = validated(channel.kind, changes["config"], channel)
        if channel.for_owners and clean != channel.config:
            raise ChannelOfOwners("Where the team's owners are told follows from who they are.")
        channel.config = clean
        channel.sealed_secrets = outbox.seal_secrets(channel.team_id, secrets)
        channel.destination = _destination(channel.kind, clean | secrets)
    for name in ("name", "enabled", *HABITS):
        if name in changes:
            setattr(channel, name, changes[name])
    if channel.enabled:
        channel.disabled_reason = ""
    channel.updated_at = now
    # Only these: how it is doing is the outbox's to write.
    channel.save(
        update_fields=[
            "name", "config", "sealed_secrets", "destination", "enabled", "disabled_reason", "updated_at", *HABITS
        ]
    )  # fmt: skip
    if back:
        outbox.catch_up(channel, now)
    return channel


def _destination(kind: str, config: Mapping[str, Any]) -> str:
    return TRANSPORTS[kind].destination(config)[:300]


@transaction.atomic
def delete_channel(channel: Channel) -> None:
    """This will delete a channel, its subscriptions and its deliveries. Raises ChannelOfOwners."""
    if channel.for_owners:
        raise ChannelOfOwners("The last resort of a team cannot be deleted; disable it instead.")
    # The notifier may be about to begin one of them, and its attempt would stand in the way.
    list(channel.deliveries.select_for_update().order_by("pk").values_list("pk"))
    channel.delete()


@transaction.atomic
def subscribed(subscription: Subscription, now: datetime) -> None:
    """This will tell a subscription's channel of the open incidents that it hears of now and has not heard of.

    For one that was made or changed.
    """
    outbox.catch_up(subscription.channel, now)


def set_template(template: MessageTemplate, columns: Mapping[str, Any], now: datetime) -> MessageTemplate:
    """This will write a team's own words for a kind of message. Messages that exist keep those they have."""
    for name, value in columns.items():
        setattr(template, name, value)
    template.updated_at = now
    template.save()
    return template


@transaction.atomic
def test(channel: Channel, now: datetime) -> Delivery:
    """This will send a test to a channel by the way that alerts take, and return the delivery to watch."""
    return outbox.send_test(channel, now)


@transaction.atomic
def replay(deliveries: QuerySet[Delivery], now: datetime) -> int:
    """This will try dead deliveries again, with the same keys, and return how many there were."""
    return outbox.replay(deliveries, now)
