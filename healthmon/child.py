"""Start a command the way every process of healthmon is started: it dies with whoever started it.

    python -m healthmon.child [--only NAME,NAME,…] command argument…

`--only` hands on these variables and no others. An allow-list: a secret added to healthmon tomorrow does not
reach the prober because somebody forgot to take it away. Names and no values, so none stands on a command line.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """This function will have the kernel send `how` to this process when its parent is gone, however it went.

    It survives exec but not a change of user, so drop privileges first. Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, how)


def main(arguments: list[str]) -> None:
    environment = dict(os.environ)
    if arguments[:1] == ["--only"]:
        allowed = set(arguments[1].split(","))
        environment = {name: value for name, value in environment.items() if name in allowed}
        arguments = arguments[2:]
    die_with_parent()
    try:
        os.execvpe(arguments[0], arguments, environment)
    except OSError as error:
        sys.exit(f"healthmon: cannot start {arguments[0]} ({error.strerror}).")


if __name__ == "__main__":
    main(sys.argv[1:])
