import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kombu import Connection
from kombu.pidbox import Mailbox

from healthmon import alive
from healthmon.environment import PROJECT


@contextmanager
def answering(status, body):
    """The URL of a server that gives this answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/healthz/ready"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def a_worker(name):
    """What a Celery worker of this name has: a mailbox that answers pings."""
    stop = threading.Event()
    listening = threading.Event()

    def serve():
        with Connection(os.environ["BROKER_URL"]) as connection:
            mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)
            node = mailbox.Node(name, handlers={"ping": lambda state, **_: {"ok": "pong"}})
            node.channel = connection.default_channel
            with node.listen():
                listening.set()
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert listening.wait(10)
        yield
    finally:
        stop.set()
        thread.join()


def parts(**said):
    return json.dumps({"status": "ill", "parts": said}).encode()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def test_is_content_with_a_url_that_answers_200():
    with answering(200, b"{}") as url:
        alive.ask_url(url)


def test_is_content_with_a_part_that_is_ok_though_others_are_not():
    with answering(503, parts(ticks="ok", probers="no prober answers in: default")) as url:
        alive.ask_url(url, "ticks")


ILL = [
    # status, body, part asked for, what is said
    (500, b"", "", "answers 500"),
    (503, parts(ticks="no tick for 12 s"), "ticks", "^no tick for 12 s$"),
    (503, parts(probers="ok"), "ticks", "says nothing of 'ticks'"),
    (200, b"<html>", "ticks", "says nothing of 'ticks'"),
    (200, b"[]", "ticks", "says nothing of 'ticks'"),
]


@pytest.mark.parametrize(("status", "body", "part", "says"), ILL)
def test_says_what_is_wrong_with_an_answer(status, body, part, says):
    with answering(status, body) as url, pytest.raises(alive.Ill, match=says):
        alive.ask_url(url, part)


def test_says_that_nobody_listens():
    with pytest.raises(alive.Ill, match="does not answer"):
        alive.ask_url(f"http://127.0.0.1:{closed_port()}/healthz/live")


def test_is_content_with_a_worker_that_answers():
    name = f"worker@alive-{os.getpid()}"
    with a_worker(name):
        alive.ask_worker(os.environ["BROKER_URL"], name)


def test_is_not_content_with_another_workers_answer():
    with a_worker(f"worker@alive-{os.getpid()}"), pytest.raises(alive.Ill, match="does not answer within"):
        alive.ask_worker(os.environ["BROKER_URL"], f"notifier@alive-{os.getpid()}", timeout=0.5)


def test_says_that_the_broker_is_away():
    with pytest.raises(alive.Ill, match="broker does not answer"):
        alive.ask_worker(f"redis://127.0.0.1:{closed_port()}/0", "worker@here")


def test_is_a_command_that_says_one_sentence_and_fails():
    done = subprocess.run(
        [sys.executable, "-m", "healthmon.alive", f"http://127.0.0.1:{closed_port()}/healthz/live"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "does not answer" in done.stderr


def test_says_that_the_broker_breaks_off_in_mid_sentence():
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def hang_up():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            with pytest.raises(alive.Ill, match="broker does not answer"):
                alive.ask_worker(f"redis://127.0.0.1:{server.getsockname()[1]}/0", "worker@here", timeout=1)
        finally:
            stop.set()
            thread.join()
