from collections.abc import Iterator

import pytest

import healthmon.celery  # noqa: F401 - tasks publish through the default app
from accounts.models import Team
from tests.support import people
from tests.support.sinks import WebhookSink


@pytest.fixture
def team() -> Team:
    return people.acme()


@pytest.fixture
def hook() -> Iterator[WebhookSink]:
    with WebhookSink() as sink:
        yield sink
