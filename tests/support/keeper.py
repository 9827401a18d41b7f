"""Starts the tests' servers, says "ready", and removes all of it when standard input ends: servers.py."""

import os
import shutil
import signal
import subprocess
import sys

from healthmon import embedded, environment

START_SECONDS = 60
STOP_SECONDS = 15


def keep() -> None:
    env = environment.read(os.environ)
    servers = {}
    try:
        embedded.prepare(env, durable=False)
        for name in ("broker", "postgres"):
            with (env.data_dir / f"{name}.log").open("w") as log:
                servers[name] = subprocess.Popen(
                    [sys.executable, "-m", "healthmon.embedded", name, "--volatile"], stdout=log, stderr=log
                )
        for name, server in servers.items():
            if not embedded.wait(name, env, server, START_SECONDS):
                raise embedded.EmbeddedFailed((env.data_dir / f"{name}.log").read_text()[-500:])
        print("ready", flush=True)
        sys.stdin.read()
    except (embedded.EmbeddedFailed, OSError) as error:
        print(" ".join(str(error).split()), flush=True)
    finally:
        for name, server in servers.items():  # at once: nothing of it is kept
            server.send_signal(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
        for server in servers.values():
            server.wait(STOP_SECONDS)
        shutil.rmtree(env.data_dir, ignore_errors=True)
        shutil.rmtree(env.run_dir, ignore_errors=True)


if __name__ == "__main__":
    keep()
