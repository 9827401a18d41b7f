"""The Celery app of what has Django."""

import threading

import pytest
from celery.signals import task_prerun
from django.db import OperationalError, connection

from healthmon.celery import app, look_at_the_connection
from notifications.tasks import relay


def in_a_thread_whose_connection_broke(then):
    """Run `then` as a worker's thread would, after PostgreSQL has hung up on it; return what it returns."""
    returned = []

    def thread():
        try:
            with connection.cursor() as cursor, pytest.raises(OperationalError):
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            returned.append(then())
        finally:
            connection.close()

    running = threading.Thread(target=thread)
    running.start()
    running.join(20)
    return returned


def answer():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
def test_begins_a_task_on_a_connection_that_works():
    def task():
        asked = dict(task_prerun.send(sender=relay))
        return look_at_the_connection in asked, answer()

    assert in_a_thread_whose_connection_broke(task) == [(True, 42)]


def test_knows_every_task_that_beat_asks_for():
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
