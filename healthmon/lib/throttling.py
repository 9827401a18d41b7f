"""How often somebody may call: limits kept in Redis, all of a request's judged and charged by one script at once.

Each limit is a bucket that empties evenly (GCRA): `quota` calls may come at once, and as many more with each window
that passes. A call that one limit refuses is charged to none.

A limit is a kindness to the others, not a lock: when Redis does not answer, calls are let through, counted and logged,
and it is not asked again for a second.
"""

import ipaddress
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import redis
import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

log = structlog.get_logger(__name__)

PREFIX = "healthmon:limit:"
TIMEOUT_SECONDS = 0.25  # a limiter that is slower than what it protects protects nothing
BACK_OFF_SECONDS = 1.0

UNCHECKED = Counter(
    "healthmon_limits_unchecked_total", "Requests let through because the broker's Redis did not answer."
)
REFUSED = Counter("healthmon_limits_refused_total", "Requests refused with a 429, by limit.", ["limit"])


class Limit(NamedTuple):
    """`quota` calls in `seconds`, under a `name` that is shown to the caller."""

    name: str
    quota: int
    seconds: int


class Standing(NamedTuple):
    """How a caller stands with one limit: `left` calls at once; `wait_seconds` until the next, 0 if it may now."""

    limit: Limit
    left: int
    wait_seconds: float
    whole_after_seconds: float  # until all of the quota is there again


# KEYS: a bucket each. ARGV: quota and seconds of each. Returns, for each: left, wait, whole_after (milliseconds).
# By the clock of the server, which all processes share; the value kept is the moment at which the bucket is empty.
_JUDGE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local empty_at, answer, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local each = ARGV[2 * i] * 1000 / ARGV[2 * i - 1]
  local was = tonumber(redis.call('GET', key) or now)
  empty_at[i] = math.max(was, now) + each
  if empty_at[i] - now > ARGV[2 * i] * 1000 + 0.5 then refused = true end
end
for i, key in ipairs(KEYS) do
  local window = ARGV[2 * i] * 1000
  local each = window / ARGV[2 * i - 1]
  local owed = empty_at[i] - now
  local wait = owed - window
  if refused then
    owed = owed - each
  else
    redis.call('SET', key, string.format('%.3f', empty_at[i]), 'PX', math.ceil(owed) + 1000)
  end
  answer[i] = {math.floor((window - owed) / each + 0.001), wait > 0.5 and math.ceil(wait) or 0, math.ceil(owed)}
end
return answer
"""


class Limiter:
    """Buckets in one Redis. Threads may share one."""

    def __init__(self, client: "redis.Redis | None", clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._judge = client.register_script(_JUDGE) if client else None
        self._not_before = 0.0

    def judge(self, asked: Sequence[tuple[Limit, str]]) -> list[Standing]:
        """This will charge a call to each (limit, whose bucket) unless one is used up, and return how each stands.

        Returns an empty list where nothing is known: without a Redis, and while it does not answer.
        """
        if self._judge is None or not asked:
            return []
        if self._clock() < self._not_before:
            UNCHECKED.inc()
            return []
        keys = [f"{PREFIX}{limit.name}:{whose}" for limit, whose in asked]
        arguments = [number for limit, _ in asked for number in (limit.quota, limit.seconds)]
        try:
            answer = self._judge(keys=keys, args=arguments)
        except redis.RedisError as problem:
            self._not_before = self._clock() + BACK_OFF_SECONDS
            UNCHECKED.inc()
            log.warning("limits_unchecked", problem=type(problem).__name__)
            return []
        return [
            Standing(limit, left, wait_ms / 1000, whole_ms / 1000)
            for (limit, _), (left, wait_ms, whole_ms) in zip(asked, answer, strict=True)
        ]


def client_of(broker_url: str) -> "redis.Redis | None":
    """This will return a client of the broker's Redis that waits for nothing long; None for another broker."""
    scheme, _, rest = broker_url.partition("://")
    if scheme == "redis+socket":
        parts = urlsplit(f"unix://{rest}")
        broker_url = f"unix://{unquote(parts.path)}"
    elif scheme not in ("redis", "rediss"):
        return None
    return redis.Redis.from_url(
        broker_url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),  # once, for a connection that the server closed while nobody used it
        health_check_interval=0,
    )


@cache
def limiter() -> Limiter:
    """This will return the limiter of this process. No connection is made before the first question."""
    client = client_of(settings.HEALTHMON_BROKER_URL)
    if client is None:
        log.warning("limits_off", reason="BROKER_URL is no Redis, which is where they are counted")
    return Limiter(client)


# --- whose --------------------------------------------------------------------------------------------


def address(request: HttpRequest) -> str:
    """This will return the address that a request came from, "" if none is known.

    X-Forwarded-For is what the caller says, so it is read from its end, only as far as proxies that are trusted wrote
    it (HEALTHMON_TRUSTED_PROXIES).
    """
    found = str(request.META.get("REMOTE_ADDR") or "")
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")]
    while hops and _trusted(found):
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        found = hop
    return found


def bucket_of(found: str) -> str:
    """This will return whose bucket an address is: an IPv6 host has a /64 of them to call from."""
    parsed = _parsed(found)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return found


def _trusted(found: str) -> bool:
    parsed = _parsed(found)
    nets = settings.HEALTHMON_TRUSTED_PROXIES
    return parsed is not None and any(parsed.version == net.version and parsed in net for net in nets)


def _parsed(found: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(found)
    except ValueError:
        return None


# --- the API ------------------------------------------------------------------------------------------


class Throttle(BaseThrottle):
    """A DRF throttle; `asked` says which limits a request counts against. One is enough for all views.

    HEALTHMON_RATE_LIMIT_FACTOR multiplies every quota; 0 switches limits off.
    """

    def asked(self, request: Request, view: Any) -> Iterable[tuple[Limit, str]]:
        """This will return limits and whose bucket of each."""
        raise NotImplementedError

    def allow_request(self, request: Request, view: Any) -> bool:
        self._wait: float | None = None
        factor = settings.HEALTHMON_RATE_LIMIT_FACTOR
        if factor <= 0:
            return True
        asked = [
            (limit._replace(quota=max(1, int(limit.quota * factor))), whose)
            for limit, whose in self.asked(request, view)
        ]
        standings = limiter().judge(asked)
        request._request.limits = standings  # type: ignore[attr-defined]  # for `RateLimitHeaders`
        refusing = [standing for standing in standings if standing.wait_seconds > 0]
        for standing in refusing:
            REFUSED.labels(standing.limit.name).inc()
        if refusing:
            self._wait = max(standing.wait_seconds for standing in refusing)
        return not refusing

    def wait(self) -> float | None:
        return self._wait


class RateLimitHeaders:
    """A middleware that tells callers how they stand, as draft-ietf-httpapi-ratelimit-headers (10) has it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        standings: Sequence[Standing] = getattr(request, "limits", ())
        if standings:
            response["RateLimit-Policy"] = ", ".join(
                f'"{limit.name}";q={limit.quota};w={limit.seconds}' for limit, *_ in standings
            )
            response["RateLimit"] = ", ".join(
                f'"{standing.limit.name}";r={standing.left};t={_resets(standing)}' for standing in standings
            )
        return response


def _resets(standing: Standing) -> int:
    """Seconds: until a call is possible again, if none is; else until the whole quota is."""
    seconds = standing.wait_seconds or standing.whole_after_seconds
    return int(-(-seconds // 1))
