"""The web process. gunicorn finds this file by itself in the folder it is started from."""

import os
import signal

from healthmon import environment
from healthmon.child import die_with_parent

bind = f"127.0.0.1:{environment.read(os.environ).port}"  # a container says --bind 0.0.0.0:8000
workers = 2
threads = 4
preload_app = True  # one import of Django for both workers: half the memory, a second less to start
timeout = 60
graceful_timeout = 30
keepalive = 15
max_requests = 100_000  # bounds a slow leak …
max_requests_jitter = 10_000  # … without both workers leaving at once
forwarded_allow_ips = "127.0.0.1,::1"
control_socket_disable = True


def post_fork(server: object, worker: object) -> None:
    # A worker that outlived a killed master would hold the port against the next one.
    die_with_parent(signal.SIGTERM)
