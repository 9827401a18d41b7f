import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.probing.evidence import Redaction

SECRETS = Redaction(
    {"Authorization": "Bearer t0ken", "X-Plain": "plain", "X-Mine": "mine!"}, ["x-mine"], '{"a": "deep"}'
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Bearer t0ken", "***"),
        ("it was t0ken, I think", "it was ***, I think"),
        ("?q=mine%21", "?q=***"),
        ('{"a": "deep"}', "***"),
        ("deep", "***"),
        ('"{\\"a\\": \\"deep\\"}"', '"***"'),
        ("nul \0", "nul \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_masks_what_was_sent_in_confidence(text, shown):
    assert SECRETS.apply(text, 100) == shown


@given(st.integers(0, 40), st.integers(0, 40))
def test_shows_no_half_of_a_secret_at_the_cut(before, limit):
    shown = SECRETS.apply("." * before + "Bearer t0ken" + "." * 40, limit)
    assert "B" not in shown
    assert "t0k" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/p?key=1#f", "https://a.example/p?***"),
        ("https://u:w@a.example/p", "https://a.example/p"),
        ("http://[", "***"),
    ],
)
def test_shows_urls_without_query_and_user(url, shown):
    kept = SECRETS.evidence(
        "http://a/", 302, [b"HTTP/1.1 302\r\n", f"Location: {url}\r\n".encode(), b"\r\n"], b""
    )
    assert kept["headers"] == {"Location": shown}


def test_bounds_what_it_keeps():
    lines = [f"X-{n}: {'y' * 5000}\r\n".encode() for n in range(500)]
    kept = SECRETS.evidence("http://a/", 500, lines, "ü".encode() * 10_000)
    assert len(kept["headers"]) == 40
    assert all(len(value) == 512 for value in kept["headers"].values())
    assert len(kept["body"]) == 2048
