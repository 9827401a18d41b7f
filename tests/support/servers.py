"""A pytest plugin: a PostgreSQL and a Valkey of its own for every run of the tests.

Loaded with `-p` (pyproject.toml), so before pytest-django reads the settings. The addresses are known at once
and the servers come up while pytest collects; nobody waits for them before the first test runs.

The servers belong to a process of their own (keeper.py) that stops them and removes their folder when its
standard input ends. That is what the other end of a pipe does when pytest is gone, however it went, so nothing
outlives even a kill -9.
"""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from healthmon import environment

STOP_SECONDS = 20

_folder = Path(tempfile.gettempdir()) / f"healthmon-tests-{os.getpid()}-{os.urandom(4).hex()}"
_keeper: subprocess.Popen[str] | None = None


def _key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


# Every setting, so that neither the developer's environment nor their .env reaches a test.
os.environ |= dict.fromkeys(environment.SETTINGS, "") | {
    "HEALTHMON_DATA_DIR": str(_folder),
    "SECRET_KEY": _key(),
    "HEALTHMON_FIELD_KEYS": _key(),
    "HEALTHMON_PROBE_KEYS": _key(),
    "HEALTHMON_ALLOWED_NETS": "127.0.0.0/8,::1/128",
    "EMAIL_URL": "memorymail://",
    "HEALTHMON_RATE_LIMIT_FACTOR": "0",  # tests of limits switch them on
}
_env = environment.read(os.environ)
os.environ |= {"DATABASE_URL": _env.database_url, "BROKER_URL": _env.broker_url}


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    global _keeper
    if not session.config.option.collectonly:
        _keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=environment.PROJECT,
            env={**os.environ, "DATABASE_URL": "", "BROKER_URL": ""},
            start_new_session=True,  # Ctrl-C is pytest's to handle
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    if _keeper and session.items and not session.testsfailed:
        answer = _keeper.stdout.readline().strip()
        if answer != "ready":
            raise pytest.UsageError(f"the tests' servers did not start: {answer or 'they said nothing'}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if _keeper:
        _keeper.stdin.close()
        _keeper.wait(STOP_SECONDS)
        _keeper.stdout.close()
