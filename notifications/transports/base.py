"""What a transport is: plain values in, nothing or DeliveryFailed out. None has seen a model."""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, quote_plus, unquote

_NEEDED: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message, or several that are told as one, as it is to be sent now.

    key: the same on every attempt. severity: `critical`, `warning` or `info`. payload: what a machine receives
    (product.md). incident_id: None for a message of none or of several. links: what to call a link → where it leads.
    """

    key: str
    kind: str
    subject: str
    text: str
    payload: dict[str, Any]
    sent_at: datetime
    severity: str = "critical"
    incident_id: int | None = None
    links: Mapping[str, str] = field(default_factory=dict)


class DeliveryFailed(Exception):
    """A send that did not arrive, with what its caller needs to know.

    permanent: the same request will never be taken. retry_after: seconds the other side asked for.
    gone: the place itself is no more (410): the channel is to be disabled.
    The text is shown to people and kept: no secrets, no URLs with tokens.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, retry_after: float | None = None, gone: bool = False
    ) -> None:
        super().__init__(message)
        self.permanent = permanent or gone
        self.retry_after = retry_after
        self.gone = gone

    def saying(self, message: str) -> "DeliveryFailed":
        """Return the same failure in other words."""
        return DeliveryFailed(message, permanent=self.permanent, retry_after=self.retry_after, gone=self.gone)


class ConfigInvalid(Exception):
    """A channel's configuration that cannot work: field → one sentence each."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in errors.items()))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a channel's configuration.

    judge: takes what was given and returns it cleaned, or raises ValueError with one sentence for its owner.
    help: a few words that stand beside the field. secret: sealed at rest and never read back.
    default: what stands for a field that was not given; a callable is called. Without one the field is needed.
    """

    name: str
    judge: Callable[[Any], Any]
    help: str
    secret: bool = False
    default: Any = _NEEDED

    @property
    def needed(self) -> bool:
        return self.default is _NEEDED


def matching(pattern: str, sentence: str) -> Callable[[Any], str]:
    """This will return a judge for text of a pattern. The sentence is for its owner; what was given is not in it."""
    compiled = re.compile(pattern)

    def judge(given: Any) -> str:
        if not isinstance(given, str) or not compiled.fullmatch(given):
            raise ValueError(sentence)
        return given

    return judge


def one_of(*words: str) -> Callable[[Any], str]:
    """This will return a judge for one of a few words."""
    return matching("|".join(words), f"One of these is needed: {', '.join(words)}.")


def cut(text: str, most: int) -> str:
    """This will return a text of at most `most` characters; an ellipsis stands for what is lost."""
    return text if len(text) <= most else text[: most - 1] + "…"


class Transport:
    """The code that talks to one kind of place: a subclass says what it needs to know and how to send.

    for_machines: it is told of every event by itself; people are told of many at once in one message.
    rate_per_minute: what a new channel is held to, None for no limit. It may be changed for each channel.
    """

    settings: tuple[Setting, ...] = ()
    for_machines = False
    rate_per_minute: int | None = None

    @property
    def secret_fields(self) -> frozenset[str]:
        """The settings that are sealed at rest; `send` gets them merged into `config`."""
        return frozenset(setting.name for setting in self.settings if setting.secret)

    def validate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """This will return the configuration cleaned and completed. Raises ConfigInvalid, naming every field."""
        errors: dict[str, str] = {}
        clean: dict[str, Any] = {}
        for name in sorted(set(config) - {setting.name for setting in self.settings}):
            errors[name] = "There is no such setting."
        for setting in self.settings:
            given = config.get(setting.name)
            try:
                if given not in (None, ""):
                    clean[setting.name] = setting.judge(given)
                elif setting.needed:
                    errors[setting.name] = f"This is needed: {setting.help}"
                else:
                    default = setting.default() if callable(setting.default) else setting.default
                    if default is not None:
                        clean[setting.name] = default
            except ValueError as problem:
                errors[setting.name] = str(problem)
        if errors:
            raise ConfigInvalid(errors)
        return clean

    def destination(self, config: Mapping[str, Any]) -> str:
        """Return the place that a bulkhead is put around, such as a host name: channels that share it fail together.

        config: as `validate` returned it, secrets included.
        """
        raise NotImplementedError

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        """This will return when the other side has taken it. Raises DeliveryFailed."""
        raise NotImplementedError


# --- secrets in other people's words ------------------------------------------------------------------------

MASK = "***"
LEAST_SECRET = 4  # a shorter one would blacken half of every text
LEAST_PIECE = 8  # of a URL
LEAST_BARE = 16  # of a secret behind a prefix such as whsec_ or a bot's number and colon


def redacted(text: str, secrets: Iterable[Any]) -> str:
    """This will return a text with every secret of at least 4 characters in it replaced by `***`.

    secrets: values of a configuration; what is not text is looked through for text. They are found as they are,
    URL-encoded, JSON- and HTML-escaped, in base64 (alone or, like a password in an Authorization header, inside
    something longer), and where the end of the text cuts them off: an excerpt of an answer that echoes its request
    is all of these. Of a URL, each longer piece is a secret too.
    """
    forms = {form for secret in _texts(secrets) for form in _forms(secret)}
    found = [match.span() for form in forms for match in re.finditer(re.escape(form), text, re.IGNORECASE)]
    found.append((len(text) - max((_begun(text, form) for form in forms), default=0), len(text)))
    kept, end = "", 0
    for start, stop in sorted(found):
        if start < stop:
            kept += text[end:start] + (MASK if start >= end else "")
            end = max(end, stop)
    return kept + text[end:]


def _begun(text: str, form: str) -> int:
    """How many characters of a secret stand at the end of a text, without the rest of it."""
    lengths = range(min(len(form) - 1, len(text)), LEAST_SECRET - 1, -1)
    return next((length for length in lengths if text.endswith(form[:length])), 0)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _texts(value)


def _forms(secret: str) -> Iterator[str]:
    plain = {secret} if len(secret) >= LEAST_SECRET else set()
    plain |= {bare for bare in re.split("[_:]", secret, maxsplit=1)[1:] if len(bare) >= LEAST_BARE}
    if "://" in secret:
        pieces = {piece for piece in re.split(r"[/@:?&=#]", secret) if len(piece) >= LEAST_PIECE}
        plain |= pieces | {unquote(piece) for piece in pieces}
    for value in plain:
        yield value
        yield from (quote(value, safe=""), quote(value), quote_plus(value), html.escape(value))
        for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
            yield from (escaped, escaped.replace("/", "\\/"))
        for before in range(3):  # how many bytes stand before it in its group of three
            inside = b"\0" * before + value.encode()
            # The first and last characters are mixed with the neighbours.
            encoded = base64.b64encode(inside).decode()[(0, 2, 3)[before] : len(inside) * 8 // 6]
            if len(encoded) >= LEAST_SECRET:
                yield from (encoded, encoded.replace("+", "-").replace("/", "_"))
                yield from (encoded.replace("/", "\\/"), quote(encoded, safe=""))
