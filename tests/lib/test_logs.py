import errno
import io
import json
import logging

import pytest
import structlog

from healthmon.lib import logs


@pytest.fixture
def written():
    """Log lines as the formatter and handler of a real process write them, into a list-like stream."""
    handler = logs.StderrHandler()
    handler.setStream(io.StringIO())
    handler.setFormatter(logs.formatter("prober", pretty=False))
    logger = logging.getLogger("written")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield lambda: [json.loads(line) for line in handler.stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_writes_one_json_event_a_line(written):
    structlog.get_logger("written.loop").info("probe.done", monitor=7, took_ms=1.5)
    logging.getLogger("written.kombu").warning("gone: %s", "broker", extra={"attempt": 3})

    ours, theirs = written()
    assert ours.pop("timestamp").endswith("+00:00")
    assert ours == {
        "level": "info",
        "logger": "written.loop",
        "process": "prober",
        "event": "probe.done",
        "monitor": 7,
        "took_ms": 1.5,
    }
    assert (theirs["event"], theirs["logger"], theirs["attempt"]) == ("gone: broker", "written.kombu", 3)


def test_keeps_a_traceback_on_its_line_and_redacts_it_too(written):
    try:
        raise ValueError("cannot reach https://user:hunter2@host/")
    except ValueError:
        logging.getLogger("written").exception("failed")
    (event,) = written()
    assert "ValueError" in event["exception"]
    assert "hunter2" not in event["exception"]


SECRET_NAMES = ["password", "db_password", "SECRET_KEY", "Authorization", "Set-Cookie", "apiKey", "X-Api-Key"]
SECRET_NAMES += ["probe_keys", "refreshToken", "client_secret", "key"]
PLAIN_NAMES = ["monitor", "key_id", "idempotency_key", "keyboard", "status_code", "tokenizer", "url"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_masks_what_is_named_like_a_secret_at_any_depth(name):
    event = {name: "hunter2", "request": {"headers": [{name: "hunter2"}]}}
    assert "hunter2" not in str(logs.redact(None, "", event))


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_leaves_other_names_alone(name):
    assert logs.redact(None, "", {name: "value"}) == {name: "value"}


TEXTS = [
    # text, the same without its secret
    ("amqp://user:hunter2@host:1/x", "amqp://***@host:1/x"),
    ("redis://:hunter2@host", "redis://***@host"),
    ("see https://host/a?token=hunter2&b=1", "see https://host/a?token=***&b=1"),
    ("got Authorization: Bearer eyJhbGciOi.hunter2", "got Authorization: Bearer ***"),
    ("whsec_hunter2hunter2", "whsec_***"),
    ("hm_hunter2hunter2 is a key", "hm_*** is a key"),
    ("Gone: /acknowledge/hunter2.hunter2/", "Gone: /acknowledge/***/"),
    ("POST /api/v1/incidents/7/acknowledge/ 409", "POST /api/v1/incidents/7/acknowledge/ 409"),
    ("mail alice@example.com about https://host/a@b", "mail alice@example.com about https://host/a@b"),
    ("basic research", "basic ***"),  # too much rather than too little
]


@pytest.mark.parametrize(("text", "without"), TEXTS)
def test_masks_secrets_inside_text(text, without):
    assert logs.scrub(text) == without


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


def record(message="lost", *args, **extra):
    made = logging.LogRecord("x", logging.INFO, "file.py", 1, message, args, None)
    vars(made).update(extra)
    return made


def test_never_raises_over_what_it_is_given():
    handler = logs.StderrHandler()
    handler.setFormatter(logs.formatter("web", pretty=False))
    handler.setStream(io.StringIO())
    handler.handle(record("odd", value=Unprintable()))
    handler.handle(record("too few %s %s", "arguments"))
    events = [json.loads(line)["event"] for line in handler.stream.getvalue().splitlines()]
    assert events == ["unloggable: RuntimeError", "unloggable: TypeError"]


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_never_raises_when_the_disk_is_full():
    handler = logs.StderrHandler()
    handler.setFormatter(logs.formatter("web", pretty=False))
    handler.setStream(FullDisk())
    handler.handle(record())
    assert handler.lost == 1


def test_cuts_a_text_that_is_too_long():
    event = logs.redact(None, "", {"body": "x" * 1_000_000})
    assert len(event["body"]) <= logs.LONGEST_TEXT + 1


def test_is_readable_on_a_terminal():
    line = logs.formatter("web", pretty=True).format(record("hello"))
    assert "hello" in line
    assert not line.startswith("{")
