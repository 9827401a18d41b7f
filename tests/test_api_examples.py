"""The curl examples of docs/api.md, run as they stand there: against a real server, by a real shell.

Each block begins with a session of its own in $token and $refresh. A block that is meant to be refused says so in a
comment before it: `<!-- answers 400 -->`.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from django.db import connection
from django.db.models import Model

from accounts import services
from accounts.authentication import open_session
from accounts.models import Role, Scope, Team, User
from healthmon.lib.clock import now as read_clock
from monitors.models import Monitor, Region
from notifications.models import Channel
from tests.support.people import PASSWORD, acme, member

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
_BLOCK = re.compile(
    r"(?:<!-- answers (?P<answers>[\d ]+) -->\n+)?```sh\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL
)

# What the page sets in one block and uses in the next ones.
PREAMBLE = """
set -eu
api={server}/api/v1
token={access} refresh={refresh}
auth="authorization: Bearer $token"; json='content-type: application/json'
key={key}
"""


class Block(NamedTuple):
    line: int
    script: str
    answers: list[str]  # one for each request; empty for "all is well"


def blocks() -> list[Block]:
    text = PAGE.read_text()
    return [
        Block(
            text[: found.start("script")].count("\n") + 1, found["script"], (found["answers"] or "").split()
        )
        for found in _BLOCK.finditer(text)
        if re.search(r"\bcurl\b", found["script"])
    ]


def _number_from_one(*models: type[Model]) -> None:
    """The page speaks of monitor 1 and channel 1. (`reset_sequences` would begin the audit anew, too, which is not
    emptied.)"""
    with connection.cursor() as cursor:
        for model in models:
            assert not model.objects.exists()
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, 'id'), 1, false)", [model._meta.db_table]
            )


def test_finds_the_examples():
    assert len(blocks()) >= 8


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed; .ci/run installs it")
@pytest.mark.django_db(transaction=True)
def test_every_example_does_what_the_page_says(live_server, tmp_path):
    _number_from_one(User, Team, Monitor, Channel)
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    owner = member("admin", Role.OWNER, acme())
    (tmp_path / ".curlrc").write_text(
        'write-out = "%{stderr}status %{http_code}\\n"\nmax-time = 30\nnoproxy = "*"\n'
    )
    _, key = services.create_key(acme(), "docs", [Scope.READ], by=owner, now=read_clock(), expires_at=None)
    _, token = services.invite(acme(), "erin@example.com", Role.RESPONDER, by=owner, now=read_clock())
    for block in blocks():
        owner.refresh_from_db()  # one example changes the password
        session = open_session(owner)
        preamble = PREAMBLE.format(server=live_server.url, key=key, **session)
        # Where somebody types their own, and their own installation.
        script = block.script.replace("PASSWORD", PASSWORD).replace("admin@healthmon.local", owner.email)
        script = script.replace("http://127.0.0.1:8000", live_server.url).replace("TOKEN", token)
        done = subprocess.run(
            ["sh", "-c", preamble + script],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        where = f"{PAGE.name}:{block.line}\n{script}\n{done.stdout}\n{done.stderr}"
        statuses = re.findall(r"^status (\d+)$", done.stderr, re.MULTILINE)
        assert done.returncode == 0, where
        assert len(statuses) >= len(re.findall(r"\bcurl\b", script)), where
        if block.answers:
            assert statuses == block.answers, where
        else:
            assert {status[0] for status in statuses} == {"2"}, where
