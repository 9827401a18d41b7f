"""`make run`: everything on one machine, until Ctrl-C.

1. Refuse, in one sentence, what cannot work: a taken port, a full disk, a second run on the same data.
2. Start the servers, migrate, make the first owner.
3. Start the five processes and wait until /healthz/ready says so.
4. Print where it is. Wait. Stop all of it in order.
"""

import argparse
import base64
import errno
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from healthmon import demo, embedded, environment
from healthmon.client import ApiFailed
from healthmon.embedded import EmbeddedFailed
from healthmon.environment import Environment, EnvironmentInvalid
from healthmon.processes import OURS, SERVERS, Processes, ProcessesFailed, exported, last_words

DISK_FLOOR_BYTES = 200 * 1024 * 1024
SERVER_SECONDS = 60  # PostgreSQL may have a crash to recover from
PREPARE_SECONDS = 600  # migrations of a large installation
READY_SECONDS = 120  # of a slow or busy machine; what is broken is said at its third start
LEFTOVER_SECONDS = 130  # the longest a run that was cut off may need to stop its processes
PAUSE_SECONDS = 0.1
DEFAULT_REGION = "default"  # the one that every database begins with
STARTS_ALLOWED = 3  # of one process before we call it broken


class Refused(RuntimeError):
    """One sentence: what stands in the way, and the remedy."""


@dataclass(frozen=True, slots=True)
class Owner:
    email: str
    password: str | None  # None when it was made at an earlier start, or given


# --- what cannot work -----------------------------------------------------------------------------------


def check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise Refused(
                f"Port {port} is reserved for root; set HEALTHMON_PORT to one above 1023."
            ) from error
        except OSError as error:
            raise Refused(
                f"Port {port} is in use by another program; stop that, or set HEALTHMON_PORT to a free one."
            ) from error


def check_disk(
    folder: Path, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> None:
    free = free_bytes(folder)
    if free < DISK_FLOOR_BYTES:
        raise Refused(
            f"Only {free // 1024**2} MB are free on the disk of {folder}; "
            f"free {DISK_FLOOR_BYTES // 1024**2} MB or set HEALTHMON_DATA_DIR to another disk."
        )


def check_region(env: Environment) -> None:
    if env.region != DEFAULT_REGION:
        raise Refused(
            f"HEALTHMON_REGION is {env.region!r}, and this machine serves {DEFAULT_REGION!r}; leave it out here, "
            "it is for a prober that runs by itself."
        )


def check_version(env: Environment) -> None:
    found = embedded.cluster_version(env)
    if env.embedded_database and found not in {"", str(embedded.POSTGRES_MAJOR)}:
        raise Refused(
            f"{embedded.postgres_folder(env)} was made by PostgreSQL {found} and this is "
            f"{embedded.POSTGRES_MAJOR}; move its data over with pg_upgrade, or set HEALTHMON_DATA_DIR to a new folder."
        )


def check_leftovers(env: Environment, seconds: float = LEFTOVER_SECONDS) -> None:
    """Wait for the processes of a run that was killed: they stop by themselves, but not at once."""
    deadline = time.monotonic() + seconds
    while listening := [
        name for name in ("rpc.sock", "broker.sock", ".s.PGSQL.5432") if _listens(env.run_dir / name)
    ]:
        if time.monotonic() > deadline:
            raise Refused(
                f"Processes of an earlier run still hold {env.run_dir / listening[0]}; "
                f"end them (fuser {env.run_dir / listening[0]} names them) and start again."
            )
        time.sleep(0.1)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
        except OSError as error:
            return error.errno not in {errno.ENOENT, errno.ECONNREFUSED}
        return True


# --- one data folder, running -----------------------------------------------------------------------------


class Installation:
    """healthmon on one data folder: `start` it, use it, `stop` it. The tests' Stack is one as well."""

    def __init__(self, environ: Mapping[str, str], *, ready_seconds: float = READY_SECONDS) -> None:
        """`environ` is all there is: nothing is read from os.environ. Raises EnvironmentInvalid."""
        self.env = environment.read(environ)
        self._given = dict(environ)
        self._ready_seconds = ready_seconds
        self._lock: Any = None
        self.processes = Processes(self.env, environ)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.env.port}"

    def start(self) -> Owner:
        """This function will start everything and return when it is ready.

        Raises Refused, EmbeddedFailed or ProcessesFailed, each one sentence. `stop` is the caller's in any case.
        """
        self._claim()
        check_leftovers(self.env)
        check_port(self.env.port)
        check_disk(self.env.data_dir)
        check_version(self.env)
        check_region(self.env)
        for note in embedded.prepare(self.env):
            print(f"healthmon: {note}", file=sys.stderr)
        keep_secrets(self.env)
        self.env = environment.read(self._given)
        self.processes = Processes(self.env, exported(self.env, self._given))
        self.processes.open()
        self._start_servers()
        owner = self._prepare_database()
        self.processes.start(*OURS)
        self._wait_until_ready()
        return owner

    def stop(self) -> None:
        """This function will stop everything, keep all data, and let go of the data folder."""
        self.processes.close()
        if self._lock:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        folder = self.env.data_dir
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "logs").mkdir(mode=0o700, exist_ok=True)
            lock = (folder / "lock").open("a+")
        except OSError as error:
            if error.errno == errno.ENOSPC:
                check_disk(folder.parent, lambda _: 0)
            raise Refused(
                f"The data folder {folder} cannot be written ({error.strerror}); "
                "correct its owner or set HEALTHMON_DATA_DIR to another one."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise Refused(
                f"healthmon already runs on {folder} (process {holder}); stop it with Ctrl-C there, "
                "or set HEALTHMON_DATA_DIR and HEALTHMON_PORT for a second one."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _start_servers(self) -> None:
        names = []
        if self.env.embedded_database:
            names.append("postgres")
        if self.env.embedded_broker:
            names.append("broker")
        self.processes.start(*names)
        self._wait(
            lambda: next(
                (n for n in names if not embedded.is_ready(n, self.env, self.processes.get(n).pid)), ""
            ),
            SERVER_SECONDS,
        )

    def _prepare_database(self) -> Owner:
        log = self.processes.log("prepare")
        try:
            with log.open("wb") as stderr:
                done = subprocess.run(
                    [sys.executable, "-m", "healthmon.child", "python", "-m", "healthmon.prepare"],
                    env=self.processes.environ,
                    cwd=environment.PROJECT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    timeout=PREPARE_SECONDS,
                    start_new_session=True,
                )
        except subprocess.TimeoutExpired as error:
            raise ProcessesFailed(
                f"The migrations took more than {PREPARE_SECONDS} s (log: {log})."
            ) from error
        if done.returncode:
            raise ProcessesFailed(f"The database could not be prepared: {last_words(log)} (log: {log}).")
        answer = json.loads(done.stdout.splitlines()[-1])
        return Owner(email=answer["email"], password=answer["password"])

    def _wait_until_ready(self) -> None:
        self._wait(lambda: self._not_running() or ill_part(f"{self.url}/healthz/ready"), self._ready_seconds)

    def _not_running(self) -> str:
        # Right after a restart the page still speaks of ticks and probers of the last run.
        return ", ".join(
            p.name for p in self.processes.all() if p.name not in SERVERS and p.state != "RUNNING"
        )

    def _wait(self, missing: Callable[[], str], seconds: float) -> None:
        """Wait until nothing is missing; raise ProcessesFailed when time is up or a process keeps dying."""
        deadline = time.monotonic() + seconds
        ends: dict[str, set[int]] = {}
        while what := missing():
            for process in self.processes.all():
                if process.ended_at:
                    ends.setdefault(process.name, set()).add(process.ended_at)
                if process.state == "FATAL" or len(ends.get(process.name, ())) >= STARTS_ALLOWED:
                    log = self.processes.log(process.name)
                    raise ProcessesFailed(f"{process.name} does not start: {last_words(log)} (log: {log}).")
            if time.monotonic() > deadline:
                raise ProcessesFailed(
                    f"Not ready after {seconds:.0f} s, because of {what}; the logs are in {self.env.data_dir / 'logs'}."
                )
            time.sleep(PAUSE_SECONDS)


def ill_part(url: str) -> str:
    """This function will ask /healthz/ready and return what is not well yet, or "" when all is."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return _ill_parts(error.read(65_536)) or f"web (it answers {error.code})"
    except OSError:
        return "web (it does not answer)"


def _ill_parts(body: bytes) -> str:
    try:
        parts = json.loads(body)["parts"]
        return "; ".join(f"{name}: {said}" for name, said in parts.items() if said != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def keep_secrets(env: Environment) -> None:
    """This function will make the keys nobody gave, once, and keep them in the data folder for its owner alone."""
    missing = {
        "SECRET_KEY": not env.secret_key,
        "HEALTHMON_FIELD_KEYS": not env.field_keys,
        "HEALTHMON_PROBE_KEYS": not env.probe_keys,
    }
    if not any(missing.values()):
        return
    file = env.data_dir / environment.SECRETS_FILE
    kept = environment.read_file(file)
    kept |= {name: base64.urlsafe_b64encode(os.urandom(32)).decode() for name in missing if missing[name]}
    lines = [
        "# Made by the first start. Lose HEALTHMON_FIELD_KEYS and the database's secrets are lost with it."
    ]
    lines += [f"{name}={value}" for name, value in kept.items()]
    write_private(file, "\n".join(lines) + "\n")


def write_private(file: Path, text: str) -> None:
    """This function will write a file for our own eyes, whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    unfinished.rename(file)


# --- the command --------------------------------------------------------------------------------------------


class Interruption:
    """Turns the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt and swallows the rest.

    A second Ctrl-C would otherwise cut the stopping short, and leave servers behind.
    """

    def __init__(self) -> None:
        self.came = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, self._receive)

    def _receive(self, _: int, __: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


def say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # The terminal is gone. What is left to do is to stop, and that must not fail over a line of text.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def welcome(installation: Installation, owner: Owner) -> str:
    if owner.password:
        return f"healthmon is ready at {installation.url}  ({owner.email} / {owner.password})"
    return (
        f"healthmon is ready at {installation.url}  (sign in as {owner.email}; forgotten the password? "
        f".venv/bin/python manage.py changepassword {owner.email})"
    )


def demo_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """This function will return settings for `--demo`: a data folder of its own, so that yours stays yours."""
    folder = environment.read(environ).data_dir / "demo"
    kept = folder / "password"
    password = kept.read_text() if kept.exists() else secrets.token_urlsafe(12)
    if not kept.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(kept, password)
    return {
        **environ,
        "HEALTHMON_DATA_DIR": str(folder),
        "HEALTHMON_ALLOWED_NETS": "127.0.0.0/8",  # where the target and the webhook are
        "HEALTHMON_ADMIN_PASSWORD": password,
        "DATABASE_URL": "",
        "BROKER_URL": "",
    }


def run(environ: Mapping[str, str], *, with_demo: bool, interruption: Interruption) -> None:
    installation = Installation(demo_settings(environ) if with_demo else environ)
    try:
        owner = installation.start()
        if with_demo:
            owner = Owner(owner.email, installation.env.admin_password)
        say(welcome(installation, owner))
        if with_demo:
            demo.play(installation.url, owner.email, owner.password or "", alive=installation.processes.alive)
        status = installation.processes.wait()
        raise ProcessesFailed(
            f"supervisord ended by itself (status {status}) and all processes with it; `make run` starts them again."
        )
    finally:
        interruption.came = True  # from here on nothing interrupts
        installation.stop()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="healthmon", description="Run all of healthmon on this machine.")
    parser.add_argument("--demo", action="store_true", help="and show an outage, start to finish")
    with_demo = parser.parse_args(arguments).demo
    interruption = Interruption()
    interruption.listen()
    try:
        environ = {**environment.read_file(environment.PROJECT / ".env"), **os.environ}
        run(environ, with_demo=with_demo, interruption=interruption)
    except KeyboardInterrupt:
        say("healthmon has stopped; its data is kept.")
        return 0
    except (EnvironmentInvalid, Refused, EmbeddedFailed, ProcessesFailed, ApiFailed) as error:
        print(f"healthmon: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        full = "; the disk is full, free 200 MB or more" if error.errno == errno.ENOSPC else ""
        print(f"healthmon: {error}{full}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
