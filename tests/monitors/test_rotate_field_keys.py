"""Rotation of the keys that seal secrets in the database."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from healthmon.lib.sealing import SealBroken, new_key
from monitors import headers
from monitors.models import Monitor
from notifications import outbox
from notifications.models import Channel
from tests.support import people
from tests.support.watching import monitor, webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def sealed(settings):
    """A monitor and a channel whose secrets an old key sealed, with a new one in front of it by now."""
    old, new = new_key(), new_key()
    settings.HEALTHMON_FIELD_KEYS = (old,)
    shop = monitor(people.acme())
    Monitor.objects.filter(pk=shop.pk).update(
        sealed_headers=headers.seal(shop.team_id, {"X-Token": "s3cret"})
    )
    channel = webhook(people.acme())
    secrets = outbox.secrets_of(channel)
    settings.HEALTHMON_FIELD_KEYS = (new, old)
    return shop.pk, channel.pk, secrets


def rotate() -> str:
    said = StringIO()
    call_command("rotate_field_keys", stdout=said, stderr=said)
    return said.getvalue()


def test_lets_the_old_key_be_dropped(sealed, settings):
    shop, channel, secrets = sealed
    assert rotate() == (
        "channels: 1 sealed anew, 0 not to be opened\nmonitors: 1 sealed anew, 0 not to be opened\n"
        "kept answers: 0 sealed anew, 0 not to be opened\nsecond factors: 0 sealed anew, 0 not to be opened\n"
    )
    settings.HEALTHMON_FIELD_KEYS = settings.HEALTHMON_FIELD_KEYS[:1]
    assert outbox.secrets_of(Channel.objects.get(pk=channel)) == secrets
    row = Monitor.objects.get(pk=shop)
    assert headers.unseal(row.team_id, row.sealed_headers) == {"X-Token": "s3cret"}
    assert "channels: 0 sealed anew" in rotate(), "a second time there is nothing to do"


def test_says_what_no_key_opens_and_leaves_it_alone(sealed, settings):
    shop, channel, _ = sealed
    settings.HEALTHMON_FIELD_KEYS = (new_key(),)
    before = Channel.objects.get(pk=channel).sealed_secrets
    with pytest.raises(CommandError, match="2 cannot be opened with any key in HEALTHMON_FIELD_KEYS"):
        rotate()
    assert Channel.objects.get(pk=channel).sealed_secrets == before
    with pytest.raises(SealBroken):
        outbox.secrets_of(Channel.objects.get(pk=channel))


def test_names_the_setting_that_is_empty(settings):
    settings.HEALTHMON_FIELD_KEYS = ()
    with pytest.raises(CommandError, match="HEALTHMON_FIELD_KEYS is empty"):
        rotate()
