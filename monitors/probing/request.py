"""What an HTTP probe sends: first, and after each redirect. Pure; nothing here opens a socket."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import urljoin, urlsplit

from healthmon.lib import sealing
from healthmon.lib.addresses import ascii_url, url_problem
from monitors.probing.expectations import parse_expected_status
from monitors.probing.outcome import TARGET_CONTEXT, Target
from monitors.probing.probe import Unfit

_REDIRECT_URL_LENGTH = 8192  # single sign-on sends long ones
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOT_IN_A_HEADER = re.compile(r"[\r\n\0]")
# A wrong one of these would leave the connection out of step.
_OUR_HEADERS = frozenset(("content-length", "transfer-encoding"))


@dataclass(frozen=True, slots=True)
class Request:
    """What one hop sends."""

    url: str  # in ASCII, its scheme in lower case
    method: str
    headers: Mapping[str, str]
    body: str | None

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("https:")

    def follow(self, status_code: int, url: str) -> "Request":
        """Return the request that a redirect asks for.

        RFC 9110, section 15.4: 303 turns everything but HEAD into GET, and so do 301 and 302 with POST. Another
        origin is told nothing that was meant for this one: no header of ours, no body.
        """
        to_get = (status_code == 303 and self.method != "HEAD") or (
            status_code in (301, 302) and self.method == "POST"
        )
        kept = self
        if to_get:
            headers = {
                name: value for name, value in self.headers.items() if not name.lower().startswith("content-")
            }
            kept = replace(self, method="GET", headers=headers, body=None)
        if _origin(url) != _origin(self.url):
            kept = replace(kept, headers={}, body=None)
        return replace(kept, url=url)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What of a request travelled sealed."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


_NO_SECRETS = Secrets()


def unsealed(target: Target, probe_keys: Sequence[str]) -> Secrets:
    """Return a target's secrets. Raises Unfit when no key opens them."""
    if target.sealed is None:
        return _NO_SECRETS
    try:
        secrets = sealing.unseal(probe_keys, target.sealed, TARGET_CONTEXT)
    except (sealing.SealBroken, ValueError):
        raise Unfit("Its secrets cannot be opened; is HEALTHMON_PROBE_KEYS the same everywhere?") from None
    return Secrets(secrets.get("headers") or {}, secrets.get("body"))


def first_request(target: Target, secrets: Secrets) -> Request:
    """Return what a target asks to be sent, its secrets merged in. Raises Unfit for what must not be sent."""
    plain = _plain_request(target.url, target.method, target.expected_status)
    if not target.headers and target.body is None and target.sealed is None:
        return plain
    overridden = {name.lower() for name in secrets.headers}
    headers = {name: value for name, value in target.headers.items() if name.lower() not in overridden}
    headers.update(secrets.headers)
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or _NOT_IN_A_HEADER.search(value):
            raise Unfit("One of its headers has a line break or another character that no header may have.")
    sent = {name: value for name, value in headers.items() if name.lower() not in _OUR_HEADERS}
    return replace(plain, headers=sent, body=target.body if secrets.body is None else secrets.body)


@functools.lru_cache(maxsize=20_000)  # a monitor's is the same at every slot, and checking the URL costs 6 µs
def _plain_request(url: str, method: str, expected_status: str) -> Request:
    problem = url_problem(url)
    if problem is not None:
        raise Unfit(f"Its URL {problem}.")
    try:
        parse_expected_status(expected_status)
    except ValueError as error:
        raise Unfit(f"Its expected status cannot be read: {error}.") from None
    if method == "CONNECT" or not _TOKEN.fullmatch(method):
        raise Unfit("Its method is not one of HTTP's.")
    return Request(ascii_url(url), method, MappingProxyType({}), None)


def location_of(lines: Sequence[bytes]) -> str:
    """Return the value of the Location header, "" if there is none."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"location":
            return value.decode("utf-8", "replace").strip()
    return ""


def resolved(base: str, location: str) -> tuple[str, str | None]:
    """Return the URL that a Location means, and what is wrong with it, if anything is.

    Judged as it came: curl's own CURLINFO_REDIRECT_URL has user names taken out and backslashes turned.
    """
    if not location.isprintable():  # urljoin would drop a tab without a word
        return "", "contains a control character"
    location = location.replace(" ", "%20")
    try:
        url = location if _SCHEME.match(location) else urljoin(base, location)
    except ValueError:
        return "", "has a host or port that cannot be read"
    problem = url_problem(url, longest=_REDIRECT_URL_LENGTH)
    return ("", problem) if problem else (ascii_url(url), None)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").removesuffix("."),
        parts.port or {"https": 443}.get(parts.scheme, 80),
    )
