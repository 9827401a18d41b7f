"""All of healthmon, as `make run` starts it, on a folder and a port of its own: the ground of the journeys.

with Stack() as stack:
    monitor = stack.api("POST", "monitors/", {"name": "shop", "url": target.url, "interval_seconds": 5})
    stack.kill("prober")
    stack.wait_until(lambda: stack.api("GET", f"monitors/{monitor['id']}/")["status"] == "down", 30)
"""

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from healthmon.client import Client
from healthmon.run import Installation

EMAIL = "alice@example.com"
PASSWORD = "correct-horse-battery"
READY_SECONDS = 180  # for a machine that is busy with other tests
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def settings(data_dir: Path, port: int, **given: str) -> dict[str, str]:
    """A whole environment, with nothing of the developer's or of the tests' own servers in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "HEALTHMON_DATA_DIR": str(data_dir),
        "HEALTHMON_PORT": str(port),
        "HEALTHMON_ADMIN_EMAIL": EMAIL,
        "HEALTHMON_ADMIN_PASSWORD": PASSWORD,
        "HEALTHMON_ALLOWED_NETS": "127.0.0.0/8",
        "HEALTHMON_PROBERS": "1",  # the one that has a request in hand is the one to kill
        **given,
    }


class Stack:
    """`processes` of healthmon/processes.conf by name: postgres broker web beat worker prober notifier.

    Further settings by their names: `Stack(EMAIL_URL="smtp://127.0.0.1:2525")`. Without a `data_dir` it makes a
    folder and removes it at the end; with one, a later Stack finds the data again.
    """

    def __init__(self, data_dir: Path | None = None, **given: str) -> None:
        self._temporary = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="healthmon-stack-"))
        self.environ = settings(self.data_dir, free_port(), **given)
        self.installation = Installation(self.environ, ready_seconds=READY_SECONDS)
        self._client = Client(self.url, EMAIL, PASSWORD)

    def __enter__(self) -> Self:
        try:
            self.installation.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.installation.stop()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.installation.url

    @property
    def env(self) -> Any:
        """The Environment of the running processes: `database_url`, `broker_url`, `probe_keys`, …"""
        return self.installation.env

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call below /api/v1/ as the owner; decoded JSON. Raises ApiFailed when the answer is not 2xx."""
        return self._client.call(method, path, body)

    def pid(self, name: str) -> int:
        """The process id, 0 when it does not run. supervisord starts a killed one again: the pid changes."""
        return self.installation.processes.get(_process(name)).pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal (SIGKILL, SIGTERM, SIGSTOP, …) to the process itself; returns the pid it had."""
        pid = self.pid(name)
        self.installation.processes.signal(_process(name), number)
        return pid

    def stop(self, *names: str) -> None:
        """Stop as supervisord does, and keep stopped until `start`."""
        self.installation.processes.stop(*names)

    def start(self, *names: str) -> None:
        self.installation.processes.start(*names)

    def log(self, name: str) -> str:
        return self.installation.processes.log(_process(name)).read_text(errors="replace")

    def wait_until(self, predicate: Callable[[], T], seconds: float, what: str = "") -> T:
        """Return the first truthy value of `predicate`, or fail with `what`. Bounds a wait; measures nothing."""
        deadline = time.monotonic() + seconds
        while not (value := predicate()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what or predicate}")
            time.sleep(0.1)
        return value


def _process(name: str) -> str:
    return "prober-1" if name == "prober" else name
