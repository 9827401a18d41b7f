"""The API, for programs beside it: the demo, and the tests that start all of healthmon."""

import json
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 10
LONGEST_ANSWER = 16 * 1024 * 1024


class ApiFailed(RuntimeError):
    """An answer that is not 2xx; `status` and the decoded `problem` say why."""

    def __init__(self, method: str, path: str, status: int, problem: Any) -> None:
        super().__init__(f"{method} {path} answered {status}: {problem}")
        self.status = status
        self.problem = problem


class Client:
    """Logs in when first needed, and again when the token has run out."""

    def __init__(self, url: str, email: str, password: str) -> None:
        self._url = f"{url}/api/v1/"
        self._login = {"email": email, "password": password}
        self._token = ""

    def call(self, method: str, path: str, body: object = None) -> Any:
        """This function will return the decoded JSON (None for 204). Raises ApiFailed, or OSError."""
        if not self._token:
            self._token = self._send("POST", "auth/token/", self._login)["access"]
        try:
            return self._send(method, path, body)
        except ApiFailed as failed:
            if failed.status != 401:
                raise
        self._token = self._send("POST", "auth/token/", self._login)["access"]
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        if path != "auth/token/":
            request.add_header("authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return _decoded(answer.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                raise ApiFailed(method, path, error.code, _decoded(error.read(65_536))) from error


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")[:500]
