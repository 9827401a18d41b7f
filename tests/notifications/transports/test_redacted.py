"""Secrets in other people's words: an answer that echoes its request must not be kept as it is."""

import base64
import html
import json
import urllib.parse

import pytest

from notifications.transports.base import cut, redacted

SECRET = 'p/ss "wörd"+&='
HOOK = "https://hooks.example.com/services/T0123456789/B0123456789/abcdefghijklmnop?key=0123456789"

FORMS = {
    "as it is": SECRET,
    "URL-encoded": urllib.parse.quote(SECRET, safe=""),
    "URL-encoded, small hex": urllib.parse.quote(SECRET, safe="").replace("%2F", "%2f"),
    "URL-encoded but for slashes": urllib.parse.quote(SECRET),
    "as in a form": urllib.parse.quote_plus(SECRET),
    "as in JSON": json.dumps(SECRET)[1:-1],
    "as in JSON, not only ASCII": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "as PHP writes JSON": json.dumps(SECRET)[1:-1].replace("/", "\\/"),
    "as in HTML": html.escape(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode().rstrip("="),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_finds_a_secret_in_every_form(form):
    said = redacted(f"It answered 500: token={form}; go away, {form}", [SECRET])
    assert form not in said
    assert said.count("***") == 2
    assert said.startswith("It answered 500: token=")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "AC0123456789abcdef"])
@pytest.mark.parametrize("after", ["", "z", "zy"])
def test_finds_a_password_in_a_login(before, after):
    password = "fedcba9876543210"
    login = base64.b64encode(f"{before}:{password}{after}".encode()).decode()
    said = redacted(f"Authorization: Basic {login}", [password])
    assert "***" in said
    assert password[2:-2] not in leaked(said.rpartition(" ")[2])


def leaked(token: str) -> str:
    """What can be read of base64 with a hole in it, from either end."""
    left, _, right = token.partition("***")
    texts = [base64.b64decode(left[: len(left) // 4 * 4])]
    texts += [base64.b64decode(right[len(right) % 4 :] + "=" * (-len(right[len(right) % 4 :]) % 4))]
    return " ".join(text.decode("latin-1") for text in texts)


@pytest.mark.parametrize("length", range(4, len(HOOK)))
def test_finds_what_the_end_of_the_text_cuts_off(length):
    said = redacted(f"It answered 500: {HOOK[:length]}", [HOOK])
    assert said == "It answered 500: ***"


PIECES = [
    # what is repeated of a URL                                    what is left of it
    (HOOK,                                                         "***"),
    (HOOK.partition("/services/")[2],                              "***/***/***?key=***"),
    ("POST /services/T0123456789/B0123456789/abcdefghijklmnop?x",  "POST /***/***/***/***?x"),
    ("no such key 0123456789",                                     "no such key ***"),
    ("no such thing",                                              "no such thing"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "left"), PIECES)
def test_takes_the_pieces_of_a_url_for_secrets(said, left):
    assert redacted(said, [HOOK]) == left


def test_decodes_the_pieces_of_a_url():
    assert redacted("no p/ss wörd!", ["jsons://user:p%2Fss%20w%C3%B6rd%21@example.com/"]) == "no ***"


@pytest.mark.parametrize("prefix", ["whsec_", "tk_", "123456:"])
def test_finds_a_secret_without_its_prefix(prefix):
    bare = "a0" * 16
    assert redacted(f"no such key {bare}", [prefix + bare]) == "no such key ***"


LEFT_ALONE = [
    # text                       secrets
    ("It answered 500: abc",     ["abc"]),
    ("It answered 500: abc",     ["", None, 5, True, 1.5]),
    ("It answered 500.",         ["abcdefgh"]),
    ("It answered 500: abc",     ["abcdefgh"]),
    ("",                         ["abcdefgh"]),
    ("abcd",                     []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secrets"), LEFT_ALONE)
def test_leaves_the_rest_alone(text, secrets):
    assert redacted(text, secrets) == text


def test_looks_into_lists_and_mappings():
    assert redacted("hush hash", [["hush"], {"name": ("hash",)}]) == "*** ***"


def test_blots_the_longer_secret_first():
    assert redacted("hush-hush", ["hush", "hush-hush"]) == "***"


def test_takes_no_secret_for_a_pattern():
    assert redacted("a.*b and axxb", ["a.*b"]) == "*** and axxb"


CUTS = [("", 5, ""), ("12345", 5, "12345"), ("123456", 5, "1234…"), ("☠☠☠", 2, "☠…"), ("ab", 1, "…")]


@pytest.mark.parametrize(("text", "most", "left"), CUTS)
def test_cuts_a_text(text, most, left):
    assert cut(text, most) == left
