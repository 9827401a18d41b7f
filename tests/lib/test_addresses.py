"""Which addresses may be dialled. The table is the rule; research and reasons are in docs/adr."""

import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.lib.addresses import METADATA, REFUSED, AddressRefused, Guard, ascii_url, resolve, url_problem

CLOSED = Guard()


def opened(*nets: str) -> Guard:
    return Guard(tuple(map(ip_network, nets)))


def test_refuses_exactly_these_ranges():
    # Written out a second time, so that a range cannot leave the table by accident.
    pinned = """
        0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
        192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
        198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
        ::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001:db8::/32 2002::/16
        2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    """
    assert set(REFUSED) == set(map(ip_network, pinned.split()))
    assert {str(ip) for ip in METADATA} == {
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
    }


@pytest.mark.parametrize("net", REFUSED, ids=str)
def test_refuses_the_first_and_last_address_of_every_range(net):
    for ip in (net[0], net[-1]):
        assert str(ip) in CLOSED.refusal(ip)


@pytest.mark.parametrize(
    "ip",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.128.0.0", "172.32.0.0", "192.0.1.0", "223.255.255.255",
     "2606:4700:4700::1111", "2a00:1450:4001::1", "2003::1", "::ffff:8.8.8.8", "fbff::1"],
)  # fmt: skip
def test_permits_public_addresses(ip):
    assert CLOSED.refusal(ip) is None


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "127.0.0.1/8", "1.2.3", "0x7f.1", "①②⑦.⓪.⓪.①", "fe80::1%eth0", "::1%lo", "10.0.0.5\n"],
)
def test_refuses_what_is_no_address_or_has_a_zone(text):
    assert CLOSED.refusal(text)


def test_says_which_range_refused():
    assert CLOSED.refusal("10.0.0.5") == "10.0.0.5 is private (10.0.0.0/8)"
    assert CLOSED.refusal("::ffff:10.0.0.5") == "10.0.0.5 is private (10.0.0.0/8)"
    assert CLOSED.refusal("169.254.169.254") == "169.254.169.254 is a cloud metadata address"


v4 = st.integers(0, 2**32 - 1).map(IPv4Address)


@given(v4)
def test_judges_a_mapped_address_as_the_one_inside(ip):
    guard = opened("10.0.0.0/8", "127.0.0.0/8")
    assert guard.refusal(IPv6Address(f"::ffff:{ip}")) == guard.refusal(ip)
    assert guard.refusal(str(ip)) == guard.refusal(ip)


@given(v4)
def test_refuses_every_other_way_to_write_ipv4_inside_ipv6(ip):
    number = int(ip)
    for form in (
        number,  # IPv4-compatible
        int(IPv6Address("::ffff:0:0:0")) | number,  # translated
        int(IPv6Address("64:ff9b::")) | number,  # NAT64
        int(IPv6Address("64:ff9b:1::")) | number,
        0x2002 << 112 | number << 80 | 1,  # 6to4
        0x2001 << 112 | number << 64 | 0xFFFFFFFF ^ number,  # Teredo
    ):
        assert CLOSED.refusal(IPv6Address(form))


@given(v4)
def test_judges_what_is_inside_an_opened_transition_range_too(ip):
    guard = opened("64:ff9b::/96", "2002::/16")
    nat64 = IPv6Address(int(IPv6Address("64:ff9b::")) | int(ip))
    six_to_four = IPv6Address(0x2002 << 112 | int(ip) << 80 | 1)
    assert bool(guard.refusal(nat64)) == bool(guard.refusal(six_to_four)) == bool(guard.refusal(ip))


@pytest.mark.parametrize(
    ("ip", "nets", "permitted"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["10.1.0.0/16"], True),
        ("10.1.2.3", ["192.168.0.0/16"], False),
        ("::1", ["127.0.0.0/8"], False),
        ("::1", ["::1/128"], True),
        ("::", ["::/128"], True),
        ("fe80::1%eth0", ["fe80::/10"], True),
        # metadata has to be named by itself
        ("169.254.169.254", ["169.254.0.0/16"], False),
        ("169.254.169.254", ["0.0.0.0/0"], False),
        ("169.254.169.254", ["169.254.169.254/31"], False),
        ("169.254.169.254", ["169.254.169.254/32"], True),
        ("::ffff:169.254.169.254", ["::/0", "0.0.0.0/0"], False),
        ("64:ff9b::a9fe:a9fe", ["64:ff9b::/96", "169.254.0.0/16"], False),
        ("100.100.100.200", ["100.64.0.0/10"], False),
        ("100.100.100.201", ["100.64.0.0/10"], True),
        ("168.63.129.16", ["168.63.129.16/32"], True),
        ("fd00:ec2::254", ["fc00::/7"], False),
        ("fd00:ec2::254", ["fd00:ec2::254/128"], True),
    ],
)
def test_opens_ranges_on_purpose_but_never_metadata_by_the_way(ip, nets, permitted):
    assert (opened(*(str(ip_network(net, strict=False)) for net in nets)).refusal(ip) is None) is permitted


# --- what a person wrote -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://example.com:8443/a?b=c&d=e@f#g",
        "https://[2606:4700::1111]:443/",
        "https://müller.example/straße?q=ü",
        "http://my_service.internal.example/",
        "http://example.com./",
        "http://example.com/a:b@c",
        "http://10.0.0.1:65535/",
    ],
)
def test_finds_nothing_wrong_with(url):
    assert url_problem(url) is None
    assert ascii_url(url).isascii()


@pytest.mark.parametrize(
    "url",
    [
        "", " http://a", "http://a ", "http://a b", "http://a\t.b", "http://a\n", "http://a\r\nX: 1", "http://a/\0",
        "http://a/\x7f", "http://a/\u2028", "http://a/\u202e", "http://a/\ud800", "http:\\\\a", "http://a\\@b",
        "http://user@a", "http://user:word@a", "http://@a", "http://a#@b", "http://a?@b", "http://a%40b",
        "file:///etc/passwd", "ftp://a", "gopher://a", "javascript:alert(1)", "dict://a:1/", "ws://a", "a", "a.b/c",
        "http:a", "http:/a", "//a", "http://", "http:///a", "http://?", "http://#", "http://:80",
        "http://a:0", "http://a:65536", "http://a:-1", "http://a:", "http://a:8o", "http://a:８0", "http://a:80:80",
        "http://.", "http://..", "http://a..b", "http://%31", "http://a%00", "http://a,b", "http://a;b", "http://$",
        "http://[", "http://[]", "http://[::1", "http://::1", "http://[a]", "http://[1.2.3.4]", "http://[v1.a]",
        "http://" + "a" * 64 + ".b/", "http://" + "ü" * 100, "http://a/" + "x" * 2040,
    ],
)  # fmt: skip
def test_refuses_a_url_like(url):
    assert url_problem(url)


@pytest.mark.parametrize("piece", ["a", ".", ":", "@", "[", "/", "%", "ü", "①", "a.", "http://"])
def test_reads_a_long_url_only_once(piece):
    # Whatever is longer than 2,048 characters is not looked at; what is shorter cannot take long.
    for url in ("http://" + piece * 100_000, "http://" + (piece * 2041)[:2041]):
        url_problem(url)


LOOPBACKS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001",
    "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "a.localhost",
    "localhost.localdomain", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACKS)
def test_refuses_loopback_at_once_however_it_is_written(host):
    url = f"http://{host}:8080/"
    assert url_problem(url) is None
    assert "127.0.0.1 is loopback" in CLOSED.url_refusal(url)
    assert opened("127.0.0.0/8").url_refusal(url) is None


@pytest.mark.parametrize(
    "host",
    ["0", "10.0.0.1", "0xa.1", "169.254.169.254", "metadata.google.internal", "2852039166", "[::1]", "[::]",
     "[fe80::1%25eth0]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "224.0.0.1"],
)  # fmt: skip
def test_refuses_other_closed_addresses_at_once(host):
    assert CLOSED.url_refusal(f"http://{host}/")


@pytest.mark.parametrize(
    "host", ["example.com", "8.8.8.8", "[2606:4700::1111]", "localhost.example.com", "1e100.net"]
)
def test_leaves_names_to_the_resolver(host):
    assert CLOSED.url_refusal(f"http://{host}/") is None


# --- connecting --------------------------------------------------------------------------------------------


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_connects_where_it_may(listener):
    host, port = listener.getsockname()
    for name in (host, "localhost"):
        with opened("127.0.0.0/8").connect(name, port, 2) as connection:
            assert connection.getpeername() == (host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
def test_lets_no_packet_leave_for_a_refused_address(listener, host):
    with pytest.raises(AddressRefused, match="127.0.0.1 is loopback"):
        CLOSED.connect(host, listener.getsockname()[1], 2)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_passes_on_that_nobody_listens(listener):
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        opened("127.0.0.0/8").connect("127.0.0.1", port, 2)


def test_connects_within_the_time_given():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        with pytest.raises(TimeoutError):
            opened("127.0.0.0/8").connect("127.0.0.1", full.getsockname()[1], 0.2)
        for client in waiting:
            client.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "a..b", ""])
def test_raises_gaierror_for_what_does_not_resolve(host):
    with pytest.raises(socket.gaierror):
        resolve(host, 80, 5)


def test_waits_for_a_lookup_no_longer_than_told():
    started = threading.active_count()
    with pytest.raises(TimeoutError):
        resolve("no-such-host.invalid", 80, 0)
    deadline = time.monotonic() + 10
    while threading.active_count() > started and time.monotonic() < deadline:
        time.sleep(0.01)  # the lookup ends by itself, and gives its place back
    assert threading.active_count() == started


def test_takes_address_objects_and_text_alike():
    for text in ("10.0.0.1", "::1", "8.8.8.8"):
        assert CLOSED.refusal(text) == CLOSED.refusal(ip_address(text))
