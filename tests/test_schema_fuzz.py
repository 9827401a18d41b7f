"""schemathesis reads our OpenAPI schema, asks thousands of things of it, and follows what is made from one address to
the next: nothing breaks (no 5xx), and nothing is answered that the schema does not promise.

`make fuzz` asks more, and says more (FUZZ_SECONDS).
"""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from rest_framework_simplejwt.tokens import AccessToken

from accounts.authentication import open_session
from incidents.models import Incident
from monitors import recording
from notifications.models import MessageTemplate
from tests.support.people import acme, ada, alice, bob, vera
from tests.support.watching import after, monitor, outcome, subscribed, webhook

CASES = 5_000
SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))  # of each operation, beside those that cover its schema
# They end the session that asks, and have tests of their own.
LEFT_OUT = ("/api/v1/auth/logout-everywhere/", "/api/v1/me/password/")


def session() -> str:
    """An access token of the owner's that lasts as long as this does."""
    opened = AccessToken(open_session(alice())["access"])
    opened.set_exp(lifetime=timedelta(hours=12))
    return str(opened)


def something_to_find() -> None:
    """One of everything: an address with an id in it is otherwise only ever a 404."""
    ada(), bob(), vera()
    subscribed(webhook(acme()), scope="all")
    shop = monitor(acme(), failures_to_open=1, tags=["prod"])
    recording.record([outcome(shop, "status", status_code=500)], after(2))
    MessageTemplate.objects.create(team=acme(), kind="opened", subject="Down")
    assert Incident.objects.count() == 1


@pytest.mark.fuzz
@pytest.mark.timeout(600 + SECONDS)
@pytest.mark.django_db(transaction=True)
def test_answers_as_the_schema_says(live_server, settings, tmp_path):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher"
    ]  # guesses at passwords by the hundred
    settings.HEALTHMON_BASE_URL = live_server.url
    something_to_find()
    report = tmp_path / "report.json"
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "--config-file", Path(__file__).with_name("schemathesis.toml"),
        "run", f"{live_server.url}/api/v1/schema/?format=json",
        "--header", f"Authorization: Bearer {session()}",
        "--phases", "examples,coverage,fuzzing,stateful",
        "--max-examples", EXAMPLES,
        "--workers", "2",
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout", "30",
        "--no-color",
        "--report", "json", "--report-json-path", report,
        *(["--max-time", SECONDS] if SECONDS else []),
        *(argument for path in LEFT_OUT for argument in ("--exclude-path", path)),
    ]  # fmt: skip
    ran = subprocess.run(
        [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout[-20_000:]}\n{ran.stderr[-3_000:]}"
    told = json.loads(report.read_text())
    print(told["test_cases"])
    assert told["test_cases"]["generated"] >= CASES
    assert told["operations"]["tested"] == told["operations"]["total"] - len(LEFT_OUT)
