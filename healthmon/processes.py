"""The processes of processes.conf, by way of a supervisord of our own."""

import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from healthmon import embedded
from healthmon.environment import SETTINGS, Environment

CONFIGURATION = Path(__file__).with_name("processes.conf")
SERVERS = ("postgres", "broker")
OURS = ("web", "beat", "worker", "prober", "notifier")  # `prober` stands for all of them

START_SECONDS = 15  # for supervisord itself
STOP_SECONDS = 35 + 20 + 60 + 10  # the longest stopwaitsecs of each group, one after the other


class ProcessesFailed(RuntimeError):
    """One sentence on what would not start, and where its log is."""


@dataclass(frozen=True, slots=True)
class Process:
    name: str
    state: str  # supervisord's: STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL
    pid: int  # 0 when there is none
    ended_at: int  # epoch seconds; 0 when it never ended


class Processes:
    """supervisord and what it runs for one data folder. Stopped with `close`, or by this process's own end."""

    def __init__(self, env: Environment, environ: Mapping[str, str]) -> None:
        self.env = env
        self.environ = dict(environ)
        self.supervisor: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """This function will start supervisord, which starts nothing by itself. Raises ProcessesFailed."""
        output = self.log("supervisord").with_suffix(".err")
        with output.open("wb") as stderr:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "healthmon.child", "supervisord", "-c", str(CONFIGURATION)],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C goes to us, and we say who stops when
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.supervisor.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise ProcessesFailed(f"supervisord does not start: {last_words(output)} (log: {output}).")
            time.sleep(0.02)

    def alive(self) -> bool:
        return self.supervisor is not None and self.supervisor.poll() is None

    def wait(self) -> int:
        """This function will wait until supervisord ends, which it does not by itself, and return its status."""
        return self.supervisor.wait() if self.supervisor else 0

    def close(self) -> None:
        """This function will stop everything in the order of processes.conf and wait until it has stopped."""
        if self.supervisor is None:
            return
        if self.supervisor.poll() is None:
            self.supervisor.terminate()
        try:
            self.supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()  # its children follow it, see healthmon.child
            self.supervisor.wait()
        self.supervisor = None

    def start(self, *names: str) -> None:
        """This function will start processes without waiting until they are of use."""
        with self._rpc() as rpc:
            for name in self._each(names):
                rpc.supervisor.startProcess(_full(name), False)

    def stop(self, *names: str) -> None:
        """This function will stop processes and wait until they have stopped."""
        with self._rpc() as rpc:
            for name in self._each(names):
                rpc.supervisor.stopProcess(_full(name), False)
        deadline = time.monotonic() + STOP_SECONDS
        while any(self.get(name).pid for name in self._each(names)):
            if time.monotonic() > deadline:
                raise ProcessesFailed(f"{' and '.join(names)} did not stop within {STOP_SECONDS} s.")
            time.sleep(0.05)

    def signal(self, name: str, number: signal.Signals) -> None:
        """This function will send a signal to the process itself, not to its children."""
        with self._rpc() as rpc:
            rpc.supervisor.signalProcess(_full(name), str(int(number)))

    def get(self, name: str) -> Process:
        with self._rpc() as rpc:
            return _process(rpc.supervisor.getProcessInfo(_full(name)))

    def all(self) -> list[Process]:
        with self._rpc() as rpc:
            return [_process(info) for info in rpc.supervisor.getAllProcessInfo()]

    def _each(self, names: Iterable[str]) -> list[str]:
        """Return the processes that names stand for."""
        probers = [f"prober-{number}" for number in range(1, self.env.probers + 1)]
        return [each for name in names for each in (probers if name == "prober" else [name])]

    def log(self, name: str) -> Path:
        return self.env.data_dir / "logs" / f"{name}.log"

    def _answers(self) -> bool:
        try:
            with self._rpc() as rpc:
                return bool(rpc.supervisor.getState())
        except ProcessesFailed:
            return False

    @contextmanager
    def _rpc(self) -> Iterator[Any]:
        transport = SupervisorTransport(None, None, f"unix://{self.env.run_dir / 'rpc.sock'}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport) as rpc:
                yield rpc
        except (OSError, xmlrpc.client.Error) as error:
            raise ProcessesFailed(
                f"supervisord does not do as it is told ({error}; log: {self.log('supervisord')})."
            ) from error


def exported(env: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """This function will return the environment for every process: what was read, spelled out.

    Settings that were not given are exported empty, so that no process reads them from a `.env` of its own.
    """
    programs = str(Path(sys.executable).parent)
    return {
        **environ,
        **{name: environ.get(name, "") for name in SETTINGS},
        "PATH": os.pathsep.join([programs, environ.get("PATH", os.defpath)]),
        "DATABASE_URL": env.database_url,
        "BROKER_URL": env.broker_url,
        "SECRET_KEY": env.secret_key,
        "HEALTHMON_FIELD_KEYS": ",".join(env.field_keys),
        "HEALTHMON_PROBE_KEYS": ",".join(env.probe_keys),
        "HEALTHMON_PORT": str(env.port),
        "HEALTHMON_DATA_DIR": str(env.data_dir),
        "HEALTHMON_RUN_DIR": str(env.run_dir),
        "HEALTHMON_REGION": env.region,
        "HEALTHMON_PROBERS": str(env.probers),
        "HEALTHMON_BASE_URL": env.base_url,
    }


def last_words(log: Path) -> str:
    """This function will return the line of a log that most likely says what went wrong."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return embedded.gist(file.read().decode(errors="replace"))
    except OSError:
        return "it left no log"


def _full(name: str) -> str:
    return name if name in SERVERS else f"healthmon:{name}"


def _process(info: Mapping[str, Any]) -> Process:
    return Process(name=info["name"], state=info["statename"], pid=info["pid"], ended_at=info["stop"])
