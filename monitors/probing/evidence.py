"""What is kept of a failing answer, with nothing in it that was sent in confidence."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

MASK = "***"
BODY_CHARACTERS = 2048
DETAIL_CHARACTERS = 300
_HEADERS = 40
_HEADER_CHARACTERS = 512
_CREDENTIAL = re.compile(r"authorization|cookie|api-?key|token|secret|password|signature", re.IGNORECASE)


class Redaction:
    """Replaces secrets in text that a server sent back. Made only when there is something to keep.

    headers: what was sent. secret_headers: the names whose values are secret, besides those that speak of a
        credential. secret_body: the body, if that is secret.
    """

    def __init__(
        self, headers: Mapping[str, str], secret_headers: Iterable[str], secret_body: str | None
    ) -> None:
        secret_names = {name.lower() for name in secret_headers}
        secrets: set[str] = set()
        for name, value in headers.items():
            if name.lower() in secret_names or _CREDENTIAL.search(name):
                secrets |= {value, value.partition(" ")[2]}  # "Bearer <token>": the token by itself, too
        if secret_body:
            secrets |= {secret_body, *_values(secret_body)}
        spelled = {form for secret in secrets for form in _spellings(secret.strip())} - {""}
        longest_first = sorted(spelled, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def apply(self, text: str, limit: int) -> str:
        """Return the first `limit` characters of `text` with secrets masked, also one that the cut would halve."""
        # PostgreSQL's text and jsonb hold no NUL, and one would cost the whole batch of outcomes.
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        kept: list[str] = []
        at = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            if match.start() >= limit:
                break
            kept += text[at : match.start()], MASK
            at = match.end()
        return "".join(kept) + text[at:limit]

    def evidence(
        self, url: str, status_code: int | None, lines: Sequence[bytes], body: bytes
    ) -> dict[str, Any]:
        """Return the evidence of an Outcome. lines: the raw header lines of the last answer."""
        return {
            "url": self.apply(_shown(url), BODY_CHARACTERS),
            "status_code": status_code,
            "headers": self._headers(lines),
            "body": self.apply(body.decode("utf-8", "replace"), BODY_CHARACTERS),
        }

    def _headers(self, lines: Sequence[bytes]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            name = self.apply(name.strip(), 64)
            if not colon or (len(headers) >= _HEADERS and name not in headers):
                continue
            value = _shown(value.strip()) if name.lower() == "location" else value.strip()
            text = MASK if _CREDENTIAL.search(name) else self.apply(value, _HEADER_CHARACTERS)
            headers[name] = f"{headers[name]}, {text}"[:_HEADER_CHARACTERS] if name in headers else text
        return headers


def _shown(url: str) -> str:
    """Return a URL as it may be mailed around: API keys and one-time tokens are often in the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, MASK if parts.query else "", ""))


def _values(body: str) -> set[str]:
    """Return the single values in a secret JSON or form body: a server that echoes one echoes it alone."""
    try:
        found = _leaves(json.loads(body))
    except (ValueError, RecursionError):
        found = {value for _, value in parse_qsl(body)}
    return {value for value in found if len(value) >= 4}  # masking every "1" would leave nothing to read


def _leaves(value: Any) -> set[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {leaf for item in value for leaf in _leaves(item)}
    return {value} if isinstance(value, str) else set()


def _spellings(secret: str) -> set[str]:
    """Return how a server may write a secret back: as it is, inside JSON, inside a URL."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
    }
