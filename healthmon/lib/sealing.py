"""Secrets at rest and on the broker: sealed with the first key of a list, opened with any of them.

Rotation is putting a new key in front and, once everything is sealed anew, dropping the last one.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class SealBroken(Exception):
    """The token was altered, was sealed with a key that is no longer listed, or belongs somewhere else."""


def new_key() -> str:
    """Return a fresh key: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def derived(secret: str, purpose: str) -> str:
    """Return a key for one purpose as 64 hexadecimal digits (HKDF-SHA256, RFC 5869): who gets hold of it has
    neither `secret` nor the key for another purpose."""
    return HKDF(SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode()).hex()


def seal(keys: Sequence[str], value: Any, context: str) -> str:
    """Return `value` encrypted as URL-safe text, to be opened with any of `keys` and the same `context`.

    value: anything JSON can hold. context: whose secret it is, such as "channel:17". Fernet has no associated
        data, so the context travels inside; without it a token copied into another row would open there.
    Raises ValueError for a missing or malformed key.
    """
    return _cipher(tuple(keys)).encrypt(json.dumps([context, value]).encode()).decode()


def unseal(keys: Sequence[str], token: str, context: str) -> Any:
    """Return the value that was sealed. Raises SealBroken, or ValueError for a missing or malformed key."""
    cipher = _cipher(tuple(keys))
    try:
        sealed_for, value = json.loads(cipher.decrypt(token))
    except (InvalidToken, ValueError):
        raise SealBroken(f"what was sealed for {context} does not open with any key in use") from None
    if sealed_for != context:
        raise SealBroken(f"what was presented for {context} was sealed for something else")
    return value


def resealed(keys: Sequence[str], token: str) -> str:
    """Return a token that the first of `keys` opens; the same one if it does already. Raises as `unseal` does."""
    try:
        _cipher(tuple(keys[:1])).decrypt(token)
    except InvalidToken:
        try:
            return _cipher(tuple(keys)).rotate(token).decode()
        except InvalidToken:
            raise SealBroken("what was sealed does not open with any key in use") from None
    return token


@functools.lru_cache(maxsize=16)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ValueError(f"no key to seal with; {_REMEDY}")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # The key itself stays out of the message: messages reach logs.
        raise ValueError(f"a key is not 32 bytes in URL-safe base64; {_REMEDY}") from None


_REMEDY = "make one with: python -c 'from healthmon.lib.sealing import new_key; print(new_key())'"
