import socket

import pytest

from monitors.probing.names import CONTROL_NAME, Resolver

NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NO_ANSWER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class FakeDns:
    """What the resolver would say: an exception to raise, or None for an address."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def __call__(self, host, port, timeout):
        self.asked.append(host)
        answer = self.answers["control" if host == CONTROL_NAME else "name"]
        if answer is not None:
            raise answer


@pytest.mark.parametrize(
    ("name", "control", "blamed"),
    [
        (NO_SUCH_NAME, None, True),  # the resolver works, the name is gone
        (None, None, False),  # it resolves now
        (NO_ANSWER, None, True),  # SERVFAIL for this one, while others resolve
        (NO_ANSWER, NO_SUCH_NAME, True),  # … or are at least answered
        (NO_ANSWER, NO_ANSWER, False),  # nobody resolves anything: our resolver
        (TimeoutError(), TimeoutError(), False),
        (TimeoutError(), None, True),
    ],
)
def test_tells_a_bad_name_from_a_bad_resolver(name, control, blamed):
    assert Resolver(FakeDns(name=name, control=control)).blames_name("a.example") is blamed


def test_asks_for_the_control_name_once_in_a_storm():
    dns = FakeDns(name=NO_ANSWER, control=NO_ANSWER)
    resolver = Resolver(dns)
    assert not any(resolver.blames_name(f"{n}.example") for n in range(50))
    assert dns.asked.count(CONTROL_NAME) == 1
