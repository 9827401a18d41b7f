"""Is this container's process well? What its health check runs: silence and 0, or one sentence and 1.

    python -m healthmon.alive http://127.0.0.1:8000/healthz/live       it answers 200
    python -m healthmon.alive http://web:8000/healthz/ready ticks      it says "ok" of its part `ticks`
    python -m healthmon.alive worker                                   worker@<this host> answers through the broker

Run every few seconds beside what it watches, so it is cheap: 0.05 s of CPU for a URL and 0.3 s for a worker, where
`celery inspect ping` needs 2 s for the same question, because it imports the whole app.
"""

import http.client
import json
import os
import socket
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 5
LONGEST_ANSWER = 65_536


class Ill(Exception):
    """One sentence: what is not as it should be."""


def ask_url(url: str, part: str = "") -> None:
    """Return if the URL answers 200 or, given a part of /healthz/ready, if it calls that part ok. Raises Ill."""
    parts = urlsplit(url)
    # Not urllib: it would go by way of http_proxy, which Docker may have put into the environment.
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path, headers={"connection": "close"})
        answer = connection.getresponse()
        body = answer.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise Ill(f"{url} does not answer ({error}).") from error
    finally:
        connection.close()
    if not part:
        if answer.status != 200:
            raise Ill(f"{url} answers {answer.status}.")
        return
    try:
        said = json.loads(body)["parts"][part]
    except (ValueError, KeyError, TypeError) as error:
        raise Ill(f"{url} answers {answer.status} and says nothing of {part!r}.") from error
    if said != "ok":
        raise Ill(str(said))


def ask_worker(broker_url: str, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
    """Return if the Celery worker of this name answers a ping that goes by way of the broker. Raises Ill."""
    from kombu import Connection  # 0.2 s to import, which a URL need not wait for
    from kombu.exceptions import OperationalError
    from kombu.pidbox import Mailbox

    bounds = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "max_retries": 1}
    with Connection(broker_url, connect_timeout=timeout, transport_options=bounds) as connection:
        mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)
        away = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            answers = mailbox.call([name], "ping", timeout=timeout)
        except away as error:  # the client's own errors as well: Redis raises them past Kombu once connected
            raise Ill(f"The broker does not answer ({error}).") from error
    if not answers:
        raise Ill(f"{name} does not answer within {timeout:g} s.")


def main(arguments: list[str]) -> None:
    what, *rest = arguments
    try:
        if "://" in what:
            ask_url(what, *rest)
        else:
            ask_worker(os.environ["BROKER_URL"], f"{what}@{socket.gethostname()}")
    except Ill as ill:
        sys.exit(str(ill))


if __name__ == "__main__":
    main(sys.argv[1:])
