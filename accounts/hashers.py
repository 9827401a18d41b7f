"""How passwords are hashed: Argon2id, slow enough to be no pleasure to guess and quick enough to log in with."""

from typing import Any

import bcrypt
from django.contrib.auth.hashers import Argon2PasswordHasher, BCryptPasswordHasher


class Argon2(Argon2PasswordHasher):
    """
    RFC 9106's second recommendation (64 MiB, t = 3) with one lane: some 200 ms of one core. One lane,
    because eight people who log in at once share the cores anyway; 64 MiB, because the eight threads of the web
    process may all be at it, and its container has 1 GB. Hashes of other parameters are made anew at the next login.
    """

    time_cost = 3
    memory_cost = 65_536  # KiB
    parallelism = 1


class BCrypt(BCryptPasswordHasher):
    """Takes a password of more than 72 bytes as those did whose hashes these are: by its first 72. Since version 5
    the library refuses one, and a login with a long password would be an error instead of an answer.
    """

    def encode(self, password: str, salt: Any) -> str:
        data = bcrypt.hashpw(password.encode()[:72], salt)
        return f"{self.algorithm}${data.decode('ascii')}"
