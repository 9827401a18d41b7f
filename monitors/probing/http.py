"""HTTP and HTTPS: one look at a URL, redirects followed hop by hop under our own rules.

What libcurl would do by itself is switched off: redirects, cookies, netrc, proxies of the environment,
decompression, other protocols. What it does better than anyone stays: the protocol, the clock, the sockets.
"""

import functools
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import pycurl

from healthmon.lib import sealing
from healthmon.lib.addresses import Guard, ascii_url, url_problem
from monitors.probing import certificates, errors
from monitors.probing.evidence import BODY_CHARACTERS, DETAIL_CHARACTERS, Redaction
from monitors.probing.expectations import parse_expected_status, status_matches
from monitors.probing.outcome import FAILING, TARGET_CONTEXT, Outcome, Reason, Target
from monitors.probing.probe import Surroundings, Unfit

MAX_HOPS = 5
MAX_BODY_BYTES = 1_048_576
MAX_HEADER_BYTES = 131_072  # all header lines together, those of any number of 1xx answers included
REUSE_SECONDS = 300
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REDIRECT_URL_LENGTH = 8192  # single sign-on sends long ones
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOT_IN_A_HEADER = re.compile(r"[\r\n\0]")
_OUR_HEADERS = frozenset(
    ("content-length", "transfer-encoding")
)  # a wrong one would desynchronise the connection


@dataclass(frozen=True, slots=True)
class Request:
    """What one hop sends."""

    url: str
    method: str
    headers: Mapping[str, str]
    body: str | None

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


class Answer:
    """What curl's callbacks collect during one hop, up to the caps."""

    def __init__(self, guard: Guard, keep_bytes: int) -> None:
        self._guard = guard
        self._keep_bytes = keep_bytes
        self.lines: list[bytes] = []
        self.body = bytearray()
        self.headers_complete = False
        self.too_large = ""
        self.refusals: list[str] = []
        self.families: set[int] = set()
        self.socket_error: OSError | None = None
        self._header_bytes = self._body_bytes = 0

    def open_socket(self, purpose: int, address: Any) -> Any:
        """Open the socket that curl is about to connect, unless its address is refused: then no packet leaves."""
        refusal = self._guard.refusal(address.addr[0])
        if refusal is not None:
            self.refusals.append(refusal)
            return pycurl.SOCKET_BAD
        try:
            opened = _HandedOver(address.family, address.socktype, address.protocol)
        except OSError as error:
            self.socket_error = error
            return pycurl.SOCKET_BAD
        self.families.add(address.family)
        return opened

    def take_header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.too_large = f"The headers are larger than {MAX_HEADER_BYTES // 1024} kB."
            return 0
        if line.startswith(b"HTTP/"):  # the next answer: those before it were 1xx
            self.lines.clear()
            self.headers_complete = False
        elif not line.strip():
            self.headers_complete = True
        self.lines.append(line)
        return None

    def take_body(self, data: bytes) -> int | None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self.too_large = f"The body is larger than {MAX_BODY_BYTES // 1_048_576} MB."
            return 0
        if len(self.body) < self._keep_bytes:
            self.body += data[: self._keep_bytes - len(self.body)]
        return None


class _HandedOver(socket.socket):
    """A socket whose descriptor pycurl duplicates; ours closes when dropped, without a ResourceWarning."""

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class Timings:
    """Phases in ms, added up over hops; None until a hop had that phase."""

    total_ms: float | None = None
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None

    def add(self, curl: Any, *, answered: bool) -> None:
        """Add one hop. curl's stamps are µs since the hop's start, 0 for what was not reached."""
        queue, dns, connect = (curl.getinfo(info) for info in _STAMPS[:3])
        tls, sent, first_byte, total = (curl.getinfo(info) for info in _STAMPS[3:])
        self.total_ms = _sum(self.total_ms, total)
        if connect > dns or not connect:  # else the connection was there already
            self.dns_ms = _sum(self.dns_ms, dns - queue) if dns else self.dns_ms
            self.connect_ms = _sum(self.connect_ms, connect - dns) if connect else self.connect_ms
            self.tls_ms = _sum(self.tls_ms, tls - connect) if tls > connect else self.tls_ms
        self.first_byte_ms = _sum(self.first_byte_ms, first_byte - sent) if answered else self.first_byte_ms


_STAMPS = (
    pycurl.QUEUE_TIME_T, pycurl.NAMELOOKUP_TIME_T, pycurl.CONNECT_TIME_T, pycurl.APPCONNECT_TIME_T,
    pycurl.PRETRANSFER_TIME_T, pycurl.STARTTRANSFER_TIME_T, pycurl.TOTAL_TIME_T,
)  # fmt: skip


def _sum(so_far_ms: float | None, more_us: int) -> float:
    return round((so_far_ms or 0) + max(more_us, 0) / 1000, 3)


class HttpProbe:
    """See `monitors.probing.probe.Probe`."""

    def __init__(self, target: Target, surroundings: Surroundings, *, now: float) -> None:
        self._target = target
        self._surroundings = surroundings
        self._started_at = now
        self._deadline = time.monotonic() + target.timeout_seconds
        self._secrets = _unsealed(target, surroundings)
        self._request = self._sent = _first_request(target, self._secrets)
        self._hops = 0
        self._timings = Timings()
        self._all_reused = True
        self._certificate_expires_at: int | None = None
        self._redaction: Redaction | None = None
        self._answer = Answer(surroundings.guard, 0)

    @property
    def host(self) -> str:
        return urlsplit(self._request.url).hostname or ""

    def prepare(self, curl: Any) -> None:
        self._answer = Answer(self._surroundings.guard, _keep_bytes(self._sent))
        remaining_ms = int((self._deadline - time.monotonic()) * 1000)
        _limit(curl, self._answer, remaining_ms)
        _connect(curl, fresh=self._target.connection == "fresh")
        if self._request.url.startswith("https:"):
            self._secure(curl)
        _ask(curl, self._request)

    def _secure(self, curl: Any) -> None:
        verify = self._target.verify_tls
        curl.setopt(pycurl.SSL_VERIFYPEER, int(verify))
        curl.setopt(pycurl.SSL_VERIFYHOST, 2 if verify else 0)
        curl.setopt(pycurl.CAINFO, self._surroundings.ca_file)
        looks = self._surroundings.certificate_looks
        if self._hops == 0 and looks.is_due(self._target.monitor_id, time.monotonic()):
            curl.setopt(pycurl.OPT_CERTINFO, 1)

    def finish(self, curl: Any, code: int, message: str) -> Outcome | None:
        self._timings.add(curl, answered=bool(self._answer.lines))
        self._all_reused = self._all_reused and curl.getinfo(pycurl.NUM_CONNECTS) == 0
        self._look_at_certificate(curl)
        status_code = curl.getinfo(pycurl.RESPONSE_CODE) or None
        if code:
            return self._outcome(status_code, *self._failure(curl, code, message))
        if not self._answer.headers_complete:  # curl is content with half a header
            return self._outcome(status_code, Reason.connect, "The answer broke off in its headers.")
        location = _location(self._answer.lines)
        if self._target.follow_redirects and status_code in _REDIRECTS and location:
            return self._redirect(status_code, location)
        return self._outcome(status_code, *self._verdict(status_code))

    def _look_at_certificate(self, curl: Any) -> None:
        if self._hops or not self._request.url.startswith("https:"):
            return
        expires_at = certificates.expires_at(curl.getinfo_raw(pycurl.INFO_CERTINFO))
        if expires_at is not None:
            self._certificate_expires_at = expires_at
            self._surroundings.certificate_looks.looked(self._target.monitor_id, time.monotonic())

    def _redirect(self, status_code: int, location: str) -> Outcome | None:
        url, problem = _resolved(self._request.url, location)
        if problem is not None:
            return self._outcome(status_code, Reason.redirect, f"It redirects to a URL that {problem}.")
        if self._hops == MAX_HOPS:
            return self._outcome(status_code, Reason.redirect, f"It redirects more than {MAX_HOPS} times.")
        if time.monotonic() >= self._deadline:
            return self._outcome(status_code, Reason.timeout, self._too_slow("following redirects"))
        self._hops += 1
        self._request = self._request.follow(status_code, url)
        return None

    def _verdict(self, status_code: int | None) -> tuple[Reason, str]:
        """Return what a complete answer says."""
        target, total_ms = self._target, self._timings.total_ms or 0
        if status_code is None or not status_matches(target.expected_status, status_code):
            return Reason.status, f"Answered {_spelled(status_code)}, expected {target.expected_status}."
        if target.degraded_after_ms is not None and total_ms > target.degraded_after_ms:
            return Reason.slow, f"Answered in {total_ms:.0f} ms, more than {target.degraded_after_ms} ms."
        return Reason.ok, ""

    def _failure(self, curl: Any, code: int, message: str) -> tuple[Reason, str]:
        """Return what a transfer that did not complete says."""
        answer = self._answer
        if answer.too_large:
            return Reason.too_large, answer.too_large
        if code == pycurl.E_COULDNT_CONNECT:
            return self._not_connected(curl, message)
        reason = errors.REASONS.get(code, Reason.inconclusive)
        if reason is Reason.timeout:
            return self._timeout(curl)
        if reason is Reason.dns:
            return reason, f"The name {self.host} does not resolve."
        if reason is Reason.tls:
            return reason, errors.tls_sentence(message, curl.getinfo(pycurl.SSL_VERIFYRESULT))
        return reason, errors.broken_sentence(code, message)

    def _not_connected(self, curl: Any, message: str) -> tuple[Reason, str]:
        answer, os_errno = self._answer, curl.getinfo(pycurl.OS_ERRNO)
        if answer.refusals and not answer.families:
            return Reason.blocked, f"May not be dialled: {'; '.join(sorted(set(answer.refusals)))}."
        if answer.socket_error is not None:
            return Reason.inconclusive, f"The prober could not open a socket: {answer.socket_error.strerror}."
        if (
            not os_errno and not answer.refusals
        ):  # there was no connect(2): pycurl could not take the socket over
            return Reason.inconclusive, f"The prober could not open a socket: {message}."
        # A prober without IPv6 (or IPv4) can say nothing about a server that has nothing else. One that tried
        # both families can: the errno is then only the last of several.
        if os_errno in errors.OURS or (os_errno in errors.NO_ROUTE and len(answer.families) == 1):
            return Reason.inconclusive, f"The prober has no way there: {os.strerror(os_errno).lower()}."
        why = os.strerror(os_errno).lower() if os_errno else message
        return Reason.connect, f"Could not connect: {why}."

    def _timeout(self, curl: Any) -> tuple[Reason, str]:
        dns, connect, tls, _, first_byte = (curl.getinfo(info) for info in _STAMPS[1:6])
        if not dns:
            return (
                Reason.dns,
                f"The name {self.host} did not resolve within {self._target.timeout_seconds:g} s.",
            )
        if not connect:
            return Reason.timeout, self._too_slow("connecting")
        if not tls and self._request.url.startswith("https:"):
            return Reason.timeout, self._too_slow("negotiating TLS")
        return Reason.timeout, self._too_slow("reading the answer" if first_byte else "waiting for an answer")

    def _too_slow(self, phase: str) -> str:
        return f"No complete answer within {self._target.timeout_seconds:g} s; ended while {phase}."

    def _outcome(self, status_code: int | None, reason: Reason, detail: str) -> Outcome:
        target, timings = self._target, self._timings
        evidence = None
        if reason in FAILING:
            evidence = self._redact().evidence(
                self._request.url, status_code, self._answer.lines, bytes(self._answer.body)
            )
        return Outcome(
            monitor_id=target.monitor_id,
            region=target.region,
            scheduled_at=target.scheduled_at,
            started_at=self._started_at,
            reason=reason,
            status_code=status_code,
            total_ms=timings.total_ms,
            dns_ms=timings.dns_ms,
            connect_ms=timings.connect_ms,
            tls_ms=timings.tls_ms,
            first_byte_ms=timings.first_byte_ms,
            detail=self._redact().apply(detail, DETAIL_CHARACTERS) if detail else "",
            evidence=evidence,
            certificate_expires_at=self._certificate_expires_at,
            reused=self._all_reused and status_code is not None,
            urgent=target.urgent,
        )

    def _redact(self) -> Redaction:
        if self._redaction is None:
            self._redaction = Redaction(self._sent.headers, self._secrets.headers, self._secrets.body)
        return self._redaction


@dataclass(frozen=True, slots=True)
class Secrets:
    """What of a request travelled sealed."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


def _unsealed(target: Target, surroundings: Surroundings) -> Secrets:
    if target.sealed is None:
        return Secrets()
    try:
        secrets = sealing.unseal(surroundings.probe_keys, target.sealed, TARGET_CONTEXT)
    except (sealing.SealBroken, ValueError):
        raise Unfit("Its secrets cannot be opened; is HEALTHMON_PROBE_KEYS the same everywhere?") from None
    return Secrets(secrets.get("headers") or {}, secrets.get("body"))


def _first_request(target: Target, secrets: Secrets) -> Request:
    url = _checked(target.url)
    try:
        parse_expected_status(target.expected_status)
    except ValueError as error:
        raise Unfit(f"Its expected status cannot be read: {error}.") from None
    if not _TOKEN.fullmatch(target.method) or target.method == "CONNECT":
        raise Unfit("Its method is not one of HTTP's.")
    overridden = {name.lower() for name in secrets.headers}
    headers = {name: value for name, value in target.headers.items() if name.lower() not in overridden}
    headers.update(secrets.headers)
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or _NOT_IN_A_HEADER.search(value):
            raise Unfit("One of its headers has a line break or another character that no header may have.")
    sent = {name: value for name, value in headers.items() if name.lower() not in _OUR_HEADERS}
    return Request(url, target.method, sent, target.body if secrets.body is None else secrets.body)


@functools.lru_cache(maxsize=20_000)  # a monitor's URL is the same at every slot, and checking it costs 30 µs
def _checked(url: str) -> str:
    problem = url_problem(url)
    if problem is not None:
        raise Unfit(f"Its URL {problem}.")
    return ascii_url(url)


def _keep_bytes(request: Request) -> int:
    """Return how much of a body to keep so that a secret across the cut is still seen, and masked, as a whole."""
    longest = max(map(len, (*request.headers.values(), request.body or "")))
    return 4 * BODY_CHARACTERS + 6 * longest  # UTF-8 and JSON's \uXXXX at their widest


def _limit(curl: Any, answer: Answer, remaining_ms: int) -> None:
    """Everything that bounds a transfer: time, bytes, protocols, and where it may go."""
    curl.setopt(pycurl.TIMEOUT_MS, max(remaining_ms, 1))  # 0 would mean for ever
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.PROXY, "")  # else curl reads http_proxy and friends
    curl.setopt(pycurl.NOPROXY, "*")
    curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)  # never inflate: a bomb stays as small as it came
    curl.setopt(pycurl.OPENSOCKETFUNCTION, answer.open_socket)
    curl.setopt(pycurl.HEADERFUNCTION, answer.take_header)
    curl.setopt(pycurl.WRITEFUNCTION, answer.take_body)


def _connect(curl: Any, *, fresh: bool) -> None:
    if fresh:
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        curl.setopt(pycurl.FORBID_REUSE, 1)
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)
        curl.setopt(pycurl.SSL_SESSIONID_CACHE, 0)  # a resumed session shows no certificate
    else:
        curl.setopt(pycurl.MAXAGE_CONN, REUSE_SECONDS)
        curl.setopt(pycurl.MAXLIFETIME_CONN, REUSE_SECONDS)


def _ask(curl: Any, request: Request) -> None:
    curl.setopt(pycurl.URL, request.url)
    curl.setopt(pycurl.USERAGENT, "healthmon")
    names = {name.lower() for name in request.headers}
    # "Name;" is curl's way to send an empty header; "Name:" would remove one.
    lines = [f"{name}: {value}" if value.strip() else f"{name};" for name, value in request.headers.items()]
    if request.method == "HEAD":
        curl.setopt(pycurl.NOBODY, 1)
    elif request.method != "GET" or request.body is not None:
        body = (request.body or "").encode()
        if body or request.method in ("POST", "PUT", "PATCH"):
            curl.setopt(pycurl.POSTFIELDS, body)
            lines.append("Expect:")
            if "content-type" not in names:
                lines.append("Content-Type:")  # else curl calls every body a form
        curl.setopt(pycurl.CUSTOMREQUEST, request.method)
    if lines:
        curl.setopt(pycurl.HTTPHEADER, [line.encode() for line in lines])


def _location(lines: Sequence[bytes]) -> str:
    """Return the value of the Location header, "" if there is none."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"location":
            return value.decode("utf-8", "replace").strip()
    return ""


def _resolved(base: str, location: str) -> tuple[str, str | None]:
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


def _spelled(status_code: int | None) -> str:
    try:
        return f"{status_code} {HTTPStatus(status_code or 0).phrase}"
    except ValueError:
        return str(status_code)
