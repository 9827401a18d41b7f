"""Logs: one JSON event a line on stderr, the same shape from structlog, the standard library and libraries.

Nobody has to remember to redact: every event passes `redact` on its way out, tracebacks included.
"""

import logging
import logging.config
import re
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

MASK = "***"
LONGEST_TEXT = 16_384  # characters of one value; a log line is not the place for a whole response
DEEPEST = 6

_SECRET_ANYWHERE = {
    "password", "passwd", "pwd", "passphrase", "secret", "secrets", "token", "tokens", "authorization",
    "cookie", "cookies", "credential", "credentials", "apikey", "apikeys", "dsn", "sealed",
}  # fmt: skip
_SECRET_LAST = {"key", "keys"}  # api_key, private-key; but not key_id
_NOT_SECRET = {"idempotency_key", "dedup_key", "routing_key"}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_IN_TEXT = [
    # amqp://user:password@host
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^/\s\"'@]*@"), rf"\1{MASK}@"),
    # ?token=… in a URL
    (re.compile(r"(?i)([?&;](?:[a-z_-]*(?:token|secret|password|key|signature))=)[^&\s\"']+"), rf"\1{MASK}"),
    # Authorization: Bearer …
    (re.compile(r"(?i)\b(bearer|basic|api-key)\s+[a-z0-9+/=._~-]{6,}"), rf"\1 {MASK}"),
    # our own kinds of key
    (re.compile(r"\b(whsec_|hm_)[A-Za-z0-9+/=_-]{6,}"), rf"\1{MASK}"),
    # the signed link of a message, and that of an invitation
    (re.compile(r"(/(?:acknowledge|invitation)/)[^/\s\"']+"), rf"\1{MASK}"),
]


def configuration(process: str, *, pretty: bool) -> dict[str, Any]:
    """This function will return a `logging.config.dictConfig` mapping (Django: `LOGGING`).

    `process` is written into every event; `pretty` is for a terminal, with colours and one line per value.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": formatter, "process": process, "pretty": pretty}},
        "handlers": {"stderr": {"()": StderrHandler, "formatter": "event"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            # Several lines a second for as long as all is well; what fails is still said.
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "urllib3": {"level": "WARNING"},
        },
    }


def configure(process: str) -> None:
    """This function will set up logging of a process without Django."""
    logging.config.dictConfig(configuration(process, pretty=sys.stderr.isatty()))


def formatter(process: str, pretty: bool) -> logging.Formatter:
    """This function will return the formatter, and point structlog at the standard library while at it."""
    structlog.configure(
        # Everything that can fail on a strange value happens in the formatter, where the handler catches it:
        # a log call must not be what breaks a task.
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        return {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": process,
            **event,
        }

    if pretty:
        rendering: list[Any] = [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]
    else:
        rendering = [structlog.processors.JSONRenderer(default=repr)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.ExtraAdder()],
        processors=[
            stamp,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact,
            *rendering,
        ],
    )


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """This function will mask values under names that speak of secrets, and secrets inside any text."""
    return {name: MASK if is_secret(name) and value else _clean(value, 0) for name, value in event.items()}


def is_secret(name: str) -> bool:
    """This function will say whether a value of this name must not be logged (`api_key`, `Set-Cookie`, …)."""
    if name.lower() in _NOT_SECRET:
        return False
    words = [word.lower() for word in _WORDS.findall(name)]
    return bool(words) and (not _SECRET_ANYWHERE.isdisjoint(words) or words[-1] in _SECRET_LAST)


def scrub(text: str) -> str:
    """This function will mask passwords in URLs, tokens in query strings and keys of our own in a text."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return scrub(value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…")
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < DEEPEST and isinstance(value, dict):
        return {
            str(name): MASK if is_secret(str(name)) and item else _clean(item, depth + 1)
            for name, item in value.items()
        }
    if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return _clean(repr(value), depth)


class StderrHandler(logging.StreamHandler[Any]):
    """A handler that never raises: a full disk or a closed pipe costs the line, not the task behind it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.lost = 0  # lines that could not even be complained about

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[0]
        name = error.__name__ if error else "an error"
        try:
            self.stream.write(
                f'{{"level": "error", "logger": "{record.name}", "event": "unloggable: {name}"}}\n'
            )
            self.stream.flush()
        except (OSError, ValueError):
            self.lost += 1
