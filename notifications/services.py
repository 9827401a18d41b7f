"""What people do with channels and deliveries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Team
from notifications import outbox
from notifications.models import Channel, Delivery
from notifications.transports import TRANSPORTS


def validated(kind: str, config: Mapping[str, Any], kept: Channel | None = None) -> tuple[dict, dict]:
    """This will judge a channel's configuration and part it into what may be read and what is sealed.

    Secrets that `config` does not give are those the channel has. Raises ConfigInvalid.
    """
    transport = TRANSPORTS[kind]
    given = dict(config)
    if kept is not None and kept.kind == kind:
        for name, secret in outbox.secrets_of(kept).items():
            if not given.get(name) or str(given[name]).startswith("***"):
                given[name] = secret
    clean = transport.validate(given)
    secrets = {name: clean.pop(name) for name in transport.secret_fields if name in clean}
    return clean, secrets


@transaction.atomic
def create_channel(
    team: Team, name: str, kind: str, config: Mapping[str, Any], enabled: bool, now: datetime
) -> tuple[Channel, dict]:
    """This will make a channel, and return it with its secrets: the only time they are shown. Raises ConfigInvalid."""
    clean, secrets = validated(kind, config)
    channel = Channel.objects.create(
        team=team,
        name=name,
        kind=kind,
        config=clean,
        sealed_secrets=outbox.seal_secrets(team.id, secrets),
        enabled=enabled,
        created_at=now,
        updated_at=now,
    )
    return channel, secrets


@transaction.atomic
def update_channel(channel: Channel, changes: Mapping[str, Any], now: datetime) -> Channel:
    """This will change a channel's name, configuration or whether it is enabled. Raises ConfigInvalid."""
    channel = Channel.objects.select_for_update().get(pk=channel.pk)
    if "name" in changes:
        channel.name = changes["name"]
    if "config" in changes:
        channel.config, secrets = validated(channel.kind, changes["config"], channel)
        channel.sealed_secrets = outbox.seal_secrets(channel.team_id, secrets)
    if "enabled" in changes:
        channel.enabled = changes["enabled"]
        if channel.enabled:
            channel.disabled_reason = ""
    channel.updated_at = now
    channel.save()
    return channel


@transaction.atomic
def test(channel: Channel, now: datetime) -> Delivery:
    """This will send a test to a channel by the way that alerts take, and return the delivery to watch."""
    return outbox.send_test(channel, now)


@transaction.atomic
def replay(deliveries: QuerySet[Delivery], now: datetime) -> int:
    """This will try dead deliveries again, with the same keys, and return how many there were."""
    return outbox.replay(deliveries, now)
