"""`make run` from the outside: a process, a terminal's signals, a folder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from healthmon import environment
from healthmon.client import Client
from tests.support.stack import EMAIL, PASSWORD, free_port, settings

READY_SECONDS = 120
pytestmark = pytest.mark.journey

PROBER_MAY_KNOW = {
    "PATH", "HOME", "LANG", "LC_ALL", "TZ",
    "BROKER_URL", "HEALTHMON_PROBE_KEYS", "HEALTHMON_ALLOWED_NETS", "HEALTHMON_REGION",
}  # fmt: skip


class Run:
    def __init__(self, given):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "healthmon.run"],
            env=given,
            cwd=environment.PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, as under a terminal
        )
        self.line = self.process.stdout.readline()

    def interrupt(self):
        """Ctrl-C, and another one from somebody impatient: the whole foreground group gets both."""
        os.killpg(self.process.pid, signal.SIGINT)
        time.sleep(0.5)
        os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def end(self):
        rest, errors = self.process.communicate(timeout=READY_SECONDS)
        return self.process.returncode, rest, errors

    def family(self):
        """Process ids of everything below it, by name of the command line."""
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                parent = _parent(entry)
                children.setdefault(parent, []).append(int(entry.name))
        found, todo = [], [self.process.pid]
        while todo:
            below = children.get(todo.pop(), [])
            found += below
            todo += below
        return found


def _parent(entry):
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def words(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def wait_until_gone(pids, seconds=60):
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {[words(pid) for pid in left]}"
        time.sleep(0.1)


@pytest.fixture
def given():
    # Not tmp_path: pytest closes that folder to the user the servers run as when we are root.
    with tempfile.TemporaryDirectory(prefix="healthmon-run-") as folder:
        yield settings(Path(folder) / "data", free_port())


def test_starts_tells_where_it_is_stops_on_ctrl_c_and_finds_its_data_again(given):
    first = Run(given)
    url = f"http://127.0.0.1:{given['HEALTHMON_PORT']}"
    assert first.line.startswith(f"healthmon is ready at {url}  ("), first.end()
    client = Client(url, EMAIL, PASSWORD)
    monitor = client.call("POST", "monitors/", {"name": "kept", "url": "http://127.0.0.1:9/"})

    family = first.family()
    assert len(family) >= 8  # supervisord and its seven
    status, _, errors = first.interrupt()
    assert (status, "Traceback" in errors) == (0, False)
    wait_until_gone(family)

    second = Run(given)
    assert second.line.startswith(f"healthmon is ready at {url}  (sign in as {EMAIL};"), second.end()
    assert client.call("GET", f"monitors/{monitor['id']}/")["name"] == "kept"
    second.interrupt()


def test_gives_the_prober_no_secret_but_its_own(given):
    running = Run(given)
    assert running.line, running.end()
    prober, *_ = [pid for pid in running.family() if "healthmon.agent" in words(pid)]
    known = dict(
        pair.split("=", 1) for pair in Path(f"/proc/{prober}/environ").read_text().split("\0") if pair
    )
    assert set(known) <= PROBER_MAY_KNOW
    secrets = environment.read_file(Path(given["HEALTHMON_DATA_DIR"]) / "secrets.env")
    for pid in running.family():
        on_the_command_line = " ".join(words(pid))
        assert not any(secret in on_the_command_line for secret in secrets.values())
        assert PASSWORD not in on_the_command_line
    running.interrupt()


def test_leaves_nothing_behind_when_it_is_killed(given):
    running = Run(given)
    assert running.line, running.end()
    family = running.family()
    running.process.kill()
    running.end()
    wait_until_gone(family)


def test_leaves_nothing_behind_when_its_supervisor_is_killed(given):
    running = Run(given)
    assert running.line, running.end()
    family = running.family()
    (supervisor,) = [pid for pid in family if any(word.endswith("processes.conf") for word in words(pid))]
    os.kill(supervisor, signal.SIGKILL)
    status, _, errors = running.end()
    assert status == 1
    assert "supervisord ended by itself" in errors
    wait_until_gone(family)
