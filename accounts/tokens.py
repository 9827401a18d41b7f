"""Secrets that are made here at random: how a key and the token of a link look, and what is kept of them.

What is kept is a SHA-256. A password needs Argon2 because people choose it, so that it can be guessed: 200 ms a guess
are its defence. These have 256 bits of chance, which nobody guesses at any speed, and a key is looked at with
every request, where 200 ms would be an attack by itself.
"""

import hashlib
import re
import secrets
import string
from typing import NamedTuple

# No sign that a URL, a header or a shell takes for something else, and one double click selects all of it.
_ALPHABET = string.ascii_letters + string.digits
_PREFIX_CHARS = 10
_SECRET_CHARS = 43  # 62^43 is a little more than 2^256
_KEY = re.compile(rf"hm_([A-Za-z0-9]{{{_PREFIX_CHARS}}})_([A-Za-z0-9]{{{_SECRET_CHARS}}})")


class NewKey(NamedTuple):
    """prefix: which key it is, no secret. kept: the digest of its secret. shown: all of it, `hm_<prefix>_<secret>`."""

    prefix: str
    kept: str
    shown: str


def new_key() -> NewKey:
    prefix, secret = _random(_PREFIX_CHARS), new_token()
    return NewKey(prefix, digest(secret), f"hm_{prefix}_{secret}")


def new_token() -> str:
    """Return 256 bits of chance as 43 letters and digits."""
    return _random(_SECRET_CHARS)


def split_key(shown: str) -> tuple[str, str] | None:
    """Return prefix and secret of what might be a key; None if it is none."""
    found = _KEY.fullmatch(shown)
    return (found[1], found[2]) if found else None


def digest(secret: str) -> str:
    """Return what is kept of a secret: 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
