"""The one guard for every address healthmon dials: probes, webhooks, every other channel.

The decision is made on the resolved address when the socket is opened, never on the text of a URL:
`http://2130706433/`, `http://0177.1/` and a name whose answer changed since it was checked all end at a number,
and the number is what is judged. `url_problem` and `Guard.url_refusal` only tell a person sooner.
"""

import functools
import ipaddress
import queue
import re
import socket
import threading
import time
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import quote, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Explicit on purpose. `is_private` misses 100.64/10, Azure's 168.63.129.16, multicast and NAT64; `is_global` lets
# multicast and NAT64 through; both change between Python versions. A test pins this table.
REFUSED: dict[Network, str] = {
    ip_network(net): what
    for net, what in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved (AS112)"),
        ("192.52.193.0/24", "reserved (AMT)"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved (AS112)"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/96", "loopback or IPv4-compatible"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b::/96", "IPv4 behind NAT64"),
        ("64:ff9b:1::/48", "IPv4 behind NAT64"),
        ("100::/64", "for discarding"),
        ("100:0:0:1::/64", "reserved"),
        ("2001::/23", "reserved (Teredo and others)"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved (AS112)"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
}

# One leaked instance credential is the whole cloud account, so opening 169.254.0.0/16 or 100.64.0.0/10 for some
# other reason does not open these: they have to be named one by one.
METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"))
)

# Names whose meaning needs no resolver; answers a person at once instead of at the first probe.
KNOWN_NAMES = {
    "localhost": "127.0.0.1",
    "localhost.localdomain": "127.0.0.1",
    "ip6-localhost": "::1",
    "ip6-loopback": "::1",
    "metadata.google.internal": "169.254.169.254",
}

URL_LENGTH = 2048
_START = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_LOOKUPS = threading.BoundedSemaphore(32)


class AddressRefused(Exception):
    """None of a name's addresses may be dialled. Its text is one sentence that may be shown to a person."""


@dataclass(frozen=True)
class Guard:
    """Says which addresses may be dialled.

    allowed_nets: ranges opened on purpose (HEALTHMON_ALLOWED_NETS). Metadata addresses stay closed unless
        one of them is exactly that address (/32 or /128).
    """

    allowed_nets: tuple[Network, ...] = ()

    def refusal(self, ip: str | Address) -> str | None:
        """Return why `ip` may not be dialled, such as "10.0.0.5 is private (10.0.0.0/8)"; None if it may be.

        ip: an address object or its numeric text, with or without a zone (`fe80::1%eth0`). What is not an
            address is refused.
        """
        return _refusal(self.allowed_nets, str(ip))

    def url_refusal(self, url: str) -> str | None:
        """Return why the host of `url` is refused where that can be said without DNS; None otherwise.

        For a URL that passed `url_problem`. None is no promise: a name is judged again at every connection.
        """
        host = _folded(urlsplit(url).hostname or "").partition("%")[0]
        number = KNOWN_NAMES.get(host) or ("127.0.0.1" if host.endswith(".localhost") else _number(host))
        return None if number is None else self.refusal(number)

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """Return a TCP connection to the first address of `host` that may be dialled and answers.

        host, port: as in a URL, IPv6 without brackets. timeout: seconds for resolving and connecting together.
        Raises AddressRefused when no address may be dialled, TimeoutError, or another OSError (socket.gaierror
        for a name that does not resolve).
        """
        deadline = time.monotonic() + timeout
        answers = resolve(host, port, timeout)
        refusals = {sockaddr: self.refusal(sockaddr[0]) for _, sockaddr in answers}
        permitted = [answer for answer in answers if refusals[answer[1]] is None]
        if not permitted:
            raise AddressRefused("; ".join(sorted({reason for reason in refusals.values() if reason})))
        failure: OSError = TimeoutError(f"no connection within {timeout:g} s")
        for family, sockaddr in permitted:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(remaining)
                connection.connect(sockaddr)
            except OSError as error:
                connection.close()
                failure = error
            else:
                connection.settimeout(timeout)
                return connection
        raise failure


@functools.lru_cache(maxsize=4096)
def _refusal(allowed_nets: tuple[Network, ...], text: str) -> str | None:
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return f"{text[:64]} is not an address"
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return _refusal(allowed_nets, str(ip.ipv4_mapped))
    if ip in METADATA:
        named = any(ip in net and net.prefixlen == net.max_prefixlen for net in allowed_nets)
        return None if named else f"{ip} is a cloud metadata address"
    net = next((net for net in REFUSED if ip in net), None)
    if net is None:
        return None
    if not any(ip in allowed for allowed in allowed_nets):
        return f"{ip} is {REFUSED[net]} ({net})"
    # A site that opens its NAT64 or 6to4 prefix still means the IPv4 address inside to be judged.
    inner = _embedded(ip)
    return None if inner is None else _refusal(allowed_nets, str(inner))


def _embedded(ip: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 transition address stands for, or None."""
    if isinstance(ip, IPv4Address):
        return None
    if ip.sixtofour:
        return ip.sixtofour
    if ip.teredo:
        return ip.teredo[1]
    compatible = ip in ip_network("::/96") and int(ip) > 1  # :: and ::1 are addresses of their own
    carries = any(ip in ip_network(net) for net in ("::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
    return IPv4Address(int(ip) & 0xFFFFFFFF) if compatible or carries else None


def resolve(host: str, port: int, timeout: float) -> list[tuple[socket.AddressFamily, Any]]:
    """Return what `host` resolves to as (family, sockaddr), in the resolver's order of preference.

    timeout: seconds. Raises socket.gaierror when the name does not resolve, TimeoutError when that takes too
    long (getaddrinfo knows no time-out of its own, so it runs in a thread; at most 32 at once in a process).
    """
    deadline = time.monotonic() + timeout
    if not _LOOKUPS.acquire(timeout=max(timeout, 0)):
        raise TimeoutError(f"resolving {host} had to wait more than {timeout:g} s for its turn")
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_look_up, args=(host, port, answers), name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(deadline - time.monotonic(), 0))
    except queue.Empty:
        raise TimeoutError(f"resolving {host} took more than {timeout:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return [(family, sockaddr) for family, _, _, _, sockaddr in answer]


def _look_up(host: str, port: int, answers: queue.SimpleQueue) -> None:
    try:
        answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        answers.put(error)
    except UnicodeError:  # an empty or over-long label: the idna codec refuses before the resolver is asked
        answers.put(socket.gaierror(socket.EAI_NONAME, "not a possible host name"))
    finally:
        _LOOKUPS.release()


def url_problem(url: str, longest: int = URL_LENGTH) -> str | None:
    """Return what is wrong with a URL that a person gave us, as the end of "This URL …"; None if nothing is.

    Judges the text alone and in linear time; stricter than any parser, so that no two of them can disagree
    about its host.
    """
    if len(url) > longest:
        return f"is longer than {longest:,} characters"
    if not url.isprintable() or " " in url or "\\" in url:
        return "contains a space, a backslash or a control character"
    if not _START.match(url):
        return "must start with http:// or https:// and a host"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "has a host or port that cannot be read"
    if "@" in url[: url.find("/", 8)] or "@" in parts.netloc:
        # Also `http://a#@b/` and `http://a?@b/`, whose host is a to one parser and b to another.
        return "must not contain a user name or password; send them in a header"
    if port == 0 or parts.netloc.endswith(":"):
        return "has a port outside 1–65535"
    return _host_problem(parts.hostname or "", bracketed="[" in parts.netloc)


def _host_problem(host: str, bracketed: bool) -> str | None:
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return "has brackets around something that is not an IPv6 address"
        return None
    try:
        ascii_host = _ascii_netloc(host)
    except UnicodeError:
        return "has a host that is not a possible name"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}\.?", ascii_host) or ascii_host.strip(".") == "":
        return "has a host that is not a possible name"
    return None


def ascii_url(url: str) -> str:
    """Return a URL that passed `url_problem` in ASCII: scheme in lower case, host in IDNA, the rest percent-encoded.

    Raises ValueError when that is not possible.
    """
    scheme, rest = url.split("://", 1)
    scheme = scheme.lower()
    if url.isascii():
        return f"{scheme}://{rest}"
    netloc = urlsplit(url).netloc
    encoded = re.sub(r"[^\x00-\x7f]+", lambda match: quote(match[0]), rest[len(netloc) :])
    return f"{scheme}://{_ascii_netloc(netloc)}{encoded}"


def _ascii_netloc(netloc: str) -> str:
    # Brackets and ports are ASCII already, and the codec leaves them alone.
    return unicodedata.normalize("NFKC", netloc).encode("idna").decode("ascii")


def _folded(host: str) -> str:
    """Return a host the way resolvers compare it: compatibility forms folded, lower case, no final dot."""
    return unicodedata.normalize("NFKC", host).replace("。", ".").lower().removesuffix(".")


def _number(host: str) -> str | None:
    """Return the address that a numeric host stands for in any form resolvers read (127.1, 0x7f.1, 2130706433)."""
    try:
        answers = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return str(answers[0][4][0])
