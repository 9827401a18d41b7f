"""HTTP and HTTPS: one look at a URL, redirects followed hop by hop under our own rules.

What libcurl would do by itself is switched off: redirects, cookies, netrc, proxies of the environment,
decompression, other protocols. What it does better than anyone stays: the protocol, the clock, the sockets.
"""

import os
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pycurl

from monitors.probing import certificates, errors
from monitors.probing.answer import NEARLY_ALL_HEADERS, Answer
from monitors.probing.evidence import BODY_CHARACTERS, DETAIL_CHARACTERS, Redaction
from monitors.probing.expectations import status_matches
from monitors.probing.outcome import FAILING, Outcome, Reason, Target
from monitors.probing.probe import Surroundings
from monitors.probing.request import Request, first_request, location_of, resolved, unsealed

MAX_HOPS = 5
REUSE_SECONDS = 300
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# How a kept connection ends that the server had closed meanwhile.
_CLOSED = frozenset((pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING))


class Timings:
    """Phases in µs, added up over hops; None until a hop had that phase."""

    __slots__ = ("connect", "dns", "first_byte", "tls", "total")

    def __init__(self) -> None:
        self.total: int | None = None
        self.dns: int | None = None
        self.connect: int | None = None
        self.tls: int | None = None
        self.first_byte: int | None = None

    def add(self, curl: Any, *, answered: bool) -> None:
        """Add one hop. curl's stamps are µs since the hop's start, 0 for what was not reached."""
        stamp = curl.getinfo
        dns, connect = stamp(pycurl.NAMELOOKUP_TIME_T), stamp(pycurl.CONNECT_TIME_T)
        tls = stamp(pycurl.APPCONNECT_TIME_T)
        self.total = (self.total or 0) + stamp(pycurl.TOTAL_TIME_T)
        if connect > dns or not connect:  # else the connection was there already
            if dns:
                self.dns = (self.dns or 0) + max(dns - stamp(pycurl.QUEUE_TIME_T), 0)
            if connect:
                self.connect = (self.connect or 0) + connect - dns
            if tls > connect:
                self.tls = (self.tls or 0) + tls - connect
        if answered:
            waited = stamp(pycurl.STARTTRANSFER_TIME_T) - stamp(pycurl.PRETRANSFER_TIME_T)
            self.first_byte = (self.first_byte or 0) + max(waited, 0)


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


class HttpProbe:
    """See `monitors.probing.probe.Probe`."""

    def __init__(self, target: Target, surroundings: Surroundings, *, now: float) -> None:
        self._target = target
        self._surroundings = surroundings
        self._started_at = now
        self._deadline = time.monotonic() + target.timeout_seconds
        self._secrets = unsealed(target, surroundings.probe_keys)
        self._request = self._sent = first_request(target, self._secrets)
        self._hops = 0
        self._timings = Timings()
        self._all_reused = True
        self._keeps = target.connection == "reuse"
        self._retried = False  # on a new connection, a kept one having been closed
        self._certificate_expires_at: int | None = None
        self._redaction: Redaction | None = None
        self._answer: Answer  # of this hop; `prepare` sets it

    @property
    def host(self) -> str:
        return urlsplit(self._request.url).hostname or ""

    @property
    def plain(self) -> bool:
        request = self._request
        return (
            request.method == "GET"
            and not request.headers
            and request.body is None
            and not request.encrypted
            and not self._keeps
        )

    def prepare(self, curl: Any, *, again: bool = False) -> None:
        if not again:
            _set(curl, _ALWAYS)
            if self._keeps:
                _keep(curl, retried=self._retried)
            else:
                _set(curl, _KEEP_NOTHING)
            if self._request.encrypted:
                self._secure(curl)
            _ask(curl, self._request)
        # What no two transfers share: a plain one sets this and nothing else.
        answer = self._answer = Answer(self._surroundings.guard, _keep_bytes(self._sent))
        remaining_ms = int((self._deadline - time.monotonic()) * 1000)
        setopt = curl.setopt
        setopt(pycurl.URL, self._request.url)
        setopt(pycurl.TIMEOUT_MS, max(remaining_ms, 1))  # 0 would mean for ever
        setopt(pycurl.OPENSOCKETFUNCTION, answer.open_socket)
        setopt(pycurl.HEADERFUNCTION, answer.heard.append)
        setopt(pycurl.WRITEFUNCTION, answer.take_body)

    def _secure(self, curl: Any) -> None:
        verify = self._target.verify_tls
        curl.setopt(pycurl.SSL_VERIFYPEER, int(verify))
        curl.setopt(pycurl.SSL_VERIFYHOST, 2 if verify else 0)
        curl.setopt(pycurl.CAINFO, self._surroundings.ca_file)
        looks = self._surroundings.certificate_looks
        if self._hops == 0 and looks.is_due(self._target.monitor_id, time.monotonic()):
            curl.setopt(pycurl.OPT_CERTINFO, 1)

    def finish(self, curl: Any, code: int, message: str) -> Outcome | None:
        answer = self._answer
        reused = curl.getinfo(pycurl.NUM_CONNECTS) == 0
        if code in _CLOSED and reused and self._keeps and not answer.heard and not self._retried:
            # curl tries again by itself unless it met five such connections in a row. What the failed attempt
            # took is not the target's, and not counted.
            self._retried = True
            return None
        self._all_reused = self._all_reused and reused
        self._timings.add(curl, answered=bool(answer.heard))
        if self._hops == 0 and self._request.encrypted:
            self._look_at_certificate(curl)
        status_code = curl.getinfo(pycurl.RESPONSE_CODE) or None
        if code:
            return self._outcome(status_code, *self._failure(curl, code, message))
        if not answer.headers_complete:  # curl is content with half a header
            return self._outcome(status_code, Reason.connect, "The answer broke off in its headers.")
        if status_code in _REDIRECTS and self._target.follow_redirects:
            location = location_of(answer.lines)
            if location:
                return self._redirect(status_code, location)
        return self._outcome(status_code, *self._verdict(status_code))

    def _look_at_certificate(self, curl: Any) -> None:
        expires_at = certificates.expires_at(curl.getinfo_raw(pycurl.INFO_CERTINFO))
        if expires_at is not None:
            self._certificate_expires_at = expires_at
            self._surroundings.certificate_looks.looked(self._target.monitor_id, time.monotonic())

    def _redirect(self, status_code: int, location: str) -> Outcome | None:
        url, problem = resolved(self._request.url, location)
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
        target, total_ms = self._target, (self._timings.total or 0) / 1000
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
        if sum(map(len, answer.heard)) > NEARLY_ALL_HEADERS:
            # curl has two codes for its own cap, and E_RECV_ERROR is one of them.
            return Reason.too_large, "The headers are too large."
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
        if not curl.getinfo(pycurl.NAMELOOKUP_TIME_T):
            return (
                Reason.dns,
                f"The name {self.host} did not resolve within {self._target.timeout_seconds:g} s.",
            )
        if not curl.getinfo(pycurl.CONNECT_TIME_T):
            phase = "connecting"
        elif self._request.encrypted and not curl.getinfo(pycurl.APPCONNECT_TIME_T):
            phase = "negotiating TLS"
        else:
            begun = curl.getinfo(pycurl.STARTTRANSFER_TIME_T)
            phase = "reading the answer" if begun else "waiting for an answer"
        return Reason.timeout, self._too_slow(phase)

    def _too_slow(self, phase: str) -> str:
        return f"No complete answer within {self._target.timeout_seconds:g} s; ended while {phase}."

    def _outcome(self, status_code: int | None, reason: Reason, detail: str) -> Outcome:
        target, timings, answer = self._target, self._timings, self._answer
        evidence = None
        if reason in FAILING:
            evidence = self._redact().evidence(
                self._request.url, status_code, answer.lines, bytes(answer.body)
            )
        answer.drop()  # a handle that is not reset holds on to it
        return Outcome(
            monitor_id=target.monitor_id,
            region=target.region,
            scheduled_at=target.scheduled_at,
            started_at=self._started_at,
            reason=reason,
            status_code=status_code,
            total_ms=_ms(timings.total),
            dns_ms=_ms(timings.dns),
            connect_ms=_ms(timings.connect),
            tls_ms=_ms(timings.tls),
            first_byte_ms=_ms(timings.first_byte),
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


def _keep_bytes(request: Request) -> int:
    """Return how much of a body to keep so that a secret across the cut is still seen, and masked, as a whole."""
    longest = len(request.body or "")
    for value in request.headers.values():
        longest = max(longest, len(value))
    return 4 * BODY_CHARACTERS + 6 * longest  # UTF-8 and JSON's \uXXXX at their widest


# Options of every transfer, with values that are no target's: where it may not go, what must not be done.
_ALWAYS = (
    (pycurl.NOSIGNAL, 1),
    (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
    (pycurl.FOLLOWLOCATION, 0),
    (pycurl.PROXY, ""),  # else curl reads http_proxy and friends
    (pycurl.NOPROXY, "*"),
    (pycurl.HTTP_CONTENT_DECODING, 0),  # never inflate: a bomb stays as small as it came
    (pycurl.USERAGENT, "healthmon"),
)
_KEEP_NOTHING = (
    (pycurl.FRESH_CONNECT, 1),
    (pycurl.FORBID_REUSE, 1),
    (pycurl.DNS_CACHE_TIMEOUT, 0),
    (pycurl.SSL_SESSIONID_CACHE, 0),  # a resumed session shows no certificate
)


def _set(curl: Any, options: tuple[tuple[int, int | str], ...]) -> None:
    for option, value in options:
        curl.setopt(option, value)


def _keep(curl: Any, *, retried: bool) -> None:
    curl.setopt(pycurl.MAXAGE_CONN, REUSE_SECONDS)
    curl.setopt(pycurl.MAXLIFETIME_CONN, REUSE_SECONDS)
    if retried:
        curl.setopt(pycurl.FRESH_CONNECT, 1)


def _ask(curl: Any, request: Request) -> None:
    """Set method, headers and body; for a GET without any of them that is nothing."""
    # "Name;" is curl's way to send an empty header; "Name:" would remove one.
    lines = [
        (f"{name}: {value}" if value.strip() else f"{name};").encode()
        for name, value in request.headers.items()
    ]
    if request.method == "HEAD":
        curl.setopt(pycurl.NOBODY, 1)
    elif request.method != "GET" or request.body is not None:
        body = (request.body or "").encode()
        if body or request.method in ("POST", "PUT", "PATCH"):
            curl.setopt(pycurl.POSTFIELDS, body)
            lines.append(b"Expect:")
            if not any(name.lower() == "content-type" for name in request.headers):
                lines.append(b"Content-Type:")  # else curl calls every body a form
        curl.setopt(pycurl.CUSTOMREQUEST, request.method)
    if lines:
        curl.setopt(pycurl.HTTPHEADER, lines)


def _spelled(status_code: int | None) -> str:
    try:
        return f"{status_code} {HTTPStatus(status_code or 0).phrase}"
    except ValueError:
        return str(status_code)
