"""What a transport is: plain values in, nothing or DeliveryFailed out. None has seen a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message as it is to be sent now. `key` is the same on every attempt."""

    key: str
    kind: str
    subject: str
    text: str
    payload: dict[str, Any]
    sent_at: datetime


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


class ConfigInvalid(Exception):
    """A channel's configuration that cannot work: field → one sentence each."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in errors.items()))
        self.errors = dict(errors)


class Transport(Protocol):
    """`secret_fields` are sealed at rest and never read back; `send` gets them merged into `config`."""

    secret_fields: frozenset[str]

    def validate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """This will return the configuration cleaned and completed. Raises ConfigInvalid."""
        ...

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        """This will return when the other side has taken it. Raises DeliveryFailed."""
        ...


def refuse_unknown(config: Mapping[str, Any], known: frozenset[str]) -> None:
    """This will raise ConfigInvalid for fields a transport does not know, each by its name."""
    if unknown := sorted(set(config) - known):
        raise ConfigInvalid(dict.fromkeys(unknown, "There is no such setting."))
