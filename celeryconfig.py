"""Celery, for both apps: `healthmon.celery` (Django) and `healthmon.agent` (the prober, no Django).

The broker is a hint and PostgreSQL the truth: every message can be rebuilt from a row. So these settings
are about coming back quickly and waiting for nothing without a bound, not about keeping messages.
"""

import os

from healthmon import environment

broker_url = environment.read(os.environ, secrets_file=False).broker_url  # the prober is to see no secret

# Nothing but JSON is read or written: a message that wants to be unpickled is refused, not run.
accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
task_ignore_result = True  # results are rows; no result backend to fill or to trust
result_expires = None  # … and none to clean up every night
enable_utc = True
timezone = "UTC"

# --- a message in hand -------------------------------------------------------------------------------
task_acks_late = (
    True  # acknowledged when done: a worker that vanished hands its tasks on after visibility_timeout
)
task_reject_on_worker_lost = False  # a task that killed its child is not put straight back to kill the next
task_retry_on_worker_lost = (
    False  # 5.7's bounded retry is an ETA message; ours is the row: slot, lease, recheck
)
task_acks_on_failure = True  # a task that raised is not redelivered either, for the same reason
worker_prefetch_multiplier = 1  # what waits in a worker's memory is what its death takes along
worker_soft_shutdown_timeout = 10.0  # SIGTERM: finish what is in hand for this long before handing back
worker_enable_soft_shutdown_on_idle = True
# Threads cannot be cancelled, and need not be: every task holds a row's lock or lease, and a second run finds it gone.
worker_cancel_long_running_tasks_on_connection_loss = False

# --- the broker goes away -----------------------------------------------------------------------------
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker waits for its broker for as long as that takes
broker_connection_timeout = 3
broker_pool_limit = 20
broker_pool_acquire_timeout = 3  # a request that wants to publish waits this long, not for ever
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
broker_transport_options = {
    "visibility_timeout": 90,  # a dead worker's messages come back after this, not after an hour
    "unacked_restore_interval": 5,  # looked for every 5 s …
    "unacked_restore_throttle": 1,  # … at each look (the default is every tenth)
    "unacked_mutex_expire": 15,  # a sweeper killed with the lock blocks the others this long, not 5 minutes
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 5,  # a half-open connection is noticed within 2 × this + the poll
    "queue_order_strategy": "priority",  # queues are drained in the order a worker names them: urgent first
}

# --- who gets what --------------------------------------------------------------------------------------
task_default_queue = "default"
task_routes = {
    "monitors.tasks.tick": {"queue": "scheduler"},
    "monitors.tasks.sweep": {"queue": "scheduler"},
    "monitors.tasks.record": {"queue": "results"},
    "notifications.tasks.*": {"queue": "alerts"},
}

# --- beat: a handful of system entries, never one per monitor --------------------------------------------
# `expire_seconds` (what the database scheduler calls it; `expires` it would drop) keeps ticks that nobody consumed
# from piling up while workers are away.
beat_schedule = {
    "tick": {"task": "monitors.tasks.tick", "schedule": 1.0, "options": {"expire_seconds": 2}},
    "sweep": {"task": "monitors.tasks.sweep", "schedule": 10.0, "options": {"expire_seconds": 10}},
    "relay": {"task": "notifications.tasks.relay", "schedule": 2.0, "options": {"expire_seconds": 4}},
    "remind": {"task": "incidents.tasks.remind", "schedule": 30.0, "options": {"expire_seconds": 30}},
    "partitions": {
        "task": "monitors.tasks.keep_partitions",
        "schedule": 3600.0,
        "options": {"expire_seconds": 3600},
    },
    "answers": {
        "task": "accounts.tasks.prune_answers",
        "schedule": 3600.0,
        "options": {"expire_seconds": 3600},
    },
    "audit": {
        "task": "accounts.tasks.prune_audit",
        "schedule": 3600.0,
        "options": {"expire_seconds": 3600},
    },
}
beat_max_loop_interval = 1

# The Django fix-up closes the database connection around every task unless told to keep it for N tasks. Whether it
# still works is asked by healthmon/celery.py.
CELERY_DB_REUSE_MAX = 1000
