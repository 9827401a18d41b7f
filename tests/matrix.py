"""Every address of healthmon, asked with every verb by everybody: `tests/matrix.txt` says what each is to be answered.

    python -m tests.matrix > draft.txt      what is answered today, in the form of tests/matrix.txt

The draft is no truth: read what differs, line by line, before it becomes the table.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("matrix.txt")
VERBS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

# Who asks the API. `alien` owns another team; `junk` is no token; `late` is the owner's token, five minutes later;
# `k-…` are keys, by their scopes; `k-alien` has all scopes of another team, `k-late` is past its end, `k-gone` revoked;
# `root` is a superuser of no team.
API_CALLERS = (
    "anon", "viewer", "resp", "admin", "owner", "alien", "junk", "late",
    "k-read", "k-inc", "k-write", "k-alien", "k-late", "k-gone", "root",
)  # fmt: skip
# Who asks for pages, in a browser. `owner` is no staff; `staff` is, as the owner of the team; `outsider` is staff, as
# the owner of another team; `superuser` is of no team.
PAGE_CALLERS = ("anon", "owner", "staff", "outsider", "superuser")


@dataclass(frozen=True)
class Line:
    route: str
    verb: str
    answers: tuple[int, ...]


def routes() -> list[str]:
    """Every address of the URLconf, such as `/api/v1/monitors/{pk}/`."""
    from django.urls import URLPattern, get_resolver

    def walk(resolver: Any, prefix: str) -> Iterator[str]:
        for pattern in resolver.url_patterns:
            here = prefix + str(pattern.pattern)
            if isinstance(pattern, URLPattern):
                yield _plain(here)
            else:
                yield from walk(pattern, here)

    return sorted(set(walk(get_resolver(), "/")))


def _plain(pattern: str) -> str:
    pattern = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"{\1}", pattern)
    pattern = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", pattern)
    return re.sub(r"\^|\$|\\Z|\(\?:|\)(?=\?)|\\", "", pattern)


def callers(route: str) -> tuple[str, ...]:
    return API_CALLERS if route.startswith("/api/v1/") else PAGE_CALLERS


def verbs(route: str) -> tuple[str, ...]:
    return VERBS if route.startswith("/api/") else ("GET", "POST")


# --- the table --------------------------------------------------------------------------------------------------


def read(text: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """The table: what is answered to each of the callers, by route and verb."""
    table: dict[tuple[str, str], tuple[int, ...]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0]
        if not line.strip():
            continue
        route, named, *answers = line.split()
        for verb in named.split(","):
            if (route, verb) in table:
                raise ValueError(f"tests/matrix.txt, line {number}: {verb} {route} stands there twice")
            table[route, verb] = tuple(int(answer) for answer in answers)
    return table


def written(lines: Iterable[Line]) -> str:
    """Lines of the table; verbs that are answered alike share one."""
    shown = []
    for route, of_route in groupby(lines, key=lambda line: line.route):
        alike: dict[tuple[int, ...], list[str]] = {}
        for line in of_route:
            alike.setdefault(line.answers, []).append(line.verb)
        for answers, named in alike.items():
            cells = "".join(
                f"{answer:>{max(4, len(who) + 1)}}"
                for answer, who in zip(answers, callers(route), strict=True)
            )
            shown.append(f"{route:<58} {','.join(named):<28}{cells}")
    return "\n".join(shown)


def heading(who: Iterable[str]) -> str:
    return f"# {'':<56} {'':<28}" + "".join(f"{name:>{max(4, len(name) + 1)}}" for name in who)


# --- the world --------------------------------------------------------------------------------------------------


class World:
    """A team with one of everything, and everybody who might ask for it."""

    def __init__(self) -> None:
        from django.test import Client
        from django.utils import timezone
        from rest_framework_simplejwt.tokens import AccessToken

        from accounts import tokens
        from accounts.authentication import SESSION_CLAIM, open_session
        from accounts.models import ApiKey, AuditEntry, Invitation, Role, User
        from incidents.models import Incident
        from monitors import recording
        from monitors.models import Prober, Region
        from notifications import services as notifications
        from notifications.models import Delivery, MessageTemplate, Subscription
        from tests.support.people import (
            JsonClient,
            acme,
            ada,
            alice,
            bob,
            charlie,
            client_of,
            globex,
            member,
            vera,
        )  # fmt: skip
        from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

        team, now = acme(), timezone.now()
        alice(), ada(), bob(), charlie()
        self.expendable = member("eve", Role.VIEWER, team)  # whom an owner removes
        shop = monitor(team, name="Shop", failures_to_open=1, tags=["prod"])
        paused = webhook(team)
        channel = subscribed(paused, scope="all")
        recording.record([outcome(shop, "status", status_code=500)], after(2))
        incident = Incident.objects.get(monitor=shop)
        delivery = Delivery.objects.filter(channel=channel).earliest("id")
        Delivery.objects.filter(pk=delivery.pk).update(status="dead", next_attempt_at=None)
        template = MessageTemplate.objects.create(team=team, kind="opened", subject="Down")
        notifications.test(channel, NOON)
        Prober.objects.create(name="p", region="default", seen_at=NOON)
        invitation = Invitation.objects.create(
            team=team,
            email="new@example.com",
            role=Role.VIEWER,
            token_hash="0" * 64,
            expires_at=now + timedelta(days=1),
        )

        def key(name: str, scopes: list[str], of: Any = team, **more: Any) -> tuple[Any, str]:
            made = tokens.new_key()
            row = ApiKey.objects.create(
                team=of, name=name, prefix=made.prefix, secret_hash=made.kept, scopes=scopes, **more
            )
            return row, made.shown

        self.key, read = key("read", ["read"])
        keys = {
            "k-read": read,
            "k-inc": key("incidents", ["incidents"])[1],
            "k-write": key("write", ["write"])[1],
            "k-alien": key("alien", ["read", "write", "incidents"], globex())[1],
            "k-late": key("late", ["read", "write", "incidents"], expires_at=now - timedelta(seconds=1))[1],
            "k-gone": key("revoked", ["read", "write", "incidents"], revoked_at=now - timedelta(seconds=1))[
                1
            ],
        }
        # What stands behind the id in an address, by the word before it (API) or by the model (console).
        self.things = {
            "monitors": shop, "incidents": incident, "channels": channel, "deliveries": delivery, "teams": team,
            "message-templates": template, "subscriptions": Subscription.objects.get(channel=channel),
            "auditentry": AuditEntry.objects.filter(kind="monitor").earliest("id"),
            "members": self.expendable, "invitations": invitation, "api-keys": self.key,
            "users": self.expendable, "regions": Region.objects.get(),
        }  # fmt: skip

        stale = AccessToken.for_user(alice())
        stale[SESSION_CLAIM] = AccessToken(open_session(alice())["access"])[SESSION_CLAIM]
        stale.set_exp(from_time=now - timedelta(minutes=6), lifetime=timedelta(minutes=5))

        def bearing(authorization: str) -> JsonClient:
            client = JsonClient()
            client.credentials(HTTP_AUTHORIZATION=authorization)
            return client

        self.api = {
            "anon": JsonClient(),
            **{who: client_of(person()) for who, person in (
                ("viewer", vera), ("resp", bob), ("admin", ada), ("owner", alice), ("alien", charlie),
            )},
            "junk": bearing("Bearer no.such.token"),
            "late": bearing(f"Bearer {stale}"),
            **{who: bearing(f"Api-Key {shown}") for who, shown in keys.items()},
            "root": client_of(User.objects.create_superuser("root@example.com", "a long enough password")),
        }  # fmt: skip
        for client in self.api.values():
            client.raise_request_exception = False

        def seated(person: Any) -> Client:
            client = Client(raise_request_exception=False)
            client.force_login(person, "django.contrib.auth.backends.ModelBackend")
            return client

        staff = member("staff", Role.OWNER, team)
        outsider = member("outsider", Role.OWNER, globex())
        User.objects.filter(pk__in=[staff.pk, outsider.pk]).update(is_staff=True)
        staff.refresh_from_db(), outsider.refresh_from_db()
        superuser = User.objects.get(email="root@example.com")
        self.pages = {
            "anon": Client(raise_request_exception=False),
            "owner": seated(alice()),
            "staff": seated(staff),
            "outsider": seated(outsider),
            "superuser": seated(superuser),
        }

    def address(self, route: str) -> str:
        """The route with ids of what is there."""
        parts = route.split("/")
        before = ""
        for index, part in enumerate(parts):
            if "{" not in part:
                before = part
                continue
            thing = self.things.get(before) if route.startswith("/api/") else self._of_page(parts)
            if part == "{team_id}":
                thing = self.things["teams"]
            parts[index] = re.sub(r"\{\w+\}", str(thing.pk) if thing is not None else "1", part)
        return "/".join(parts)

    def _of_page(self, parts: list[str]) -> Any:
        from django.apps import apps

        if parts[1] != "admin" or len(parts) < 5:
            return None
        try:
            model = apps.get_model(parts[2], parts[3])
        except LookupError:
            return None
        known = [thing for thing in self.things.values() if isinstance(thing, model)]
        return known[0] if known else model._default_manager.order_by("pk").first()

    def ask(self, route: str, verb: str, who: str) -> int:
        """The status of the answer. Nothing of what it did stays."""
        from django.db import transaction

        with transaction.atomic():
            client = (self.api if route.startswith("/api/v1/") else self.pages)[who]
            cookies = client.cookies.output(header="")
            arguments: dict[str, Any] = {}
            if verb in ("POST", "PUT", "PATCH") and route.startswith("/api/"):
                body = BODIES.get((route, verb), {})
                arguments = {"data": body(self) if callable(body) else body}
            status = getattr(client, verb.lower())(self.address(route), **arguments).status_code
            client.cookies.clear()  # logging out takes them away
            client.cookies.load(cookies.replace("\r\n", ";"))
            transaction.set_rollback(True)
        return status

    def asked(self, route: str) -> list[Line]:
        return [
            Line(route, verb, tuple(self.ask(route, verb, who) for who in callers(route)))
            for verb in verbs(route)
        ]


# What is sent, so that whoever may do it does it: otherwise the answer is a 400, and may have come too early.
_HOOK = {"name": "Hook", "kind": "webhook", "config": {"url": "https://hooks.example.com/"}}
_MONITOR = {"name": "Shop", "url": "https://example.com/"}
BODIES: dict[tuple[str, str], dict | Callable[[World], dict]] = {
    ("/api/v1/monitors/", "POST"): _MONITOR,
    ("/api/v1/monitors/{pk}/", "PUT"): _MONITOR,
    ("/api/v1/monitors/{pk}/", "PATCH"): {"name": "Store"},
    ("/api/v1/monitors/by-external-id/{external_id}/", "PUT"): _MONITOR,
    ("/api/v1/monitors/bulk/", "POST"): lambda world: {"delete": [world.things["monitors"].pk]},
    ("/api/v1/incidents/{pk}/comment/", "POST"): {"text": "Looking."},
    ("/api/v1/channels/", "POST"): _HOOK,
    ("/api/v1/channels/{pk}/", "PUT"): _HOOK,
    ("/api/v1/channels/{pk}/", "PATCH"): {"name": "Other"},
    ("/api/v1/subscriptions/", "POST"): lambda world: {
        "channel": world.things["channels"].pk, "scope": "tag", "tag": "x"
    },
    ("/api/v1/subscriptions/{pk}/", "PUT"): lambda world: {
        "channel": world.things["channels"].pk, "scope": "tag", "tag": "y"
    },
    ("/api/v1/subscriptions/{pk}/", "PATCH"): {"min_severity": "critical"},
    ("/api/v1/message-templates/", "POST"): {"kind": "resolved", "subject": "Up"},
    ("/api/v1/message-templates/{pk}/", "PUT"): {"kind": "opened", "subject": "Down!"},
    ("/api/v1/message-templates/{pk}/", "PATCH"): {"subject": "Down!"},
    ("/api/v1/teams/", "POST"): {"name": "New", "slug": "new"},
    ("/api/v1/teams/{pk}/", "PATCH"): {"name": "Renamed"},
    ("/api/v1/teams/{pk}/", "PUT"): {"name": "Renamed"},
    ("/api/v1/teams/{team_id}/members/{user_id}/", "PATCH"): {"role": "responder"},
    ("/api/v1/teams/{team_id}/members/{user_id}/", "PUT"): {"role": "responder"},
    ("/api/v1/teams/{team_id}/invitations/", "POST"): {"email": "newer@example.com", "role": "viewer"},
    ("/api/v1/api-keys/", "POST"): {"name": "deploy", "scopes": ["read"]},
    ("/api/v1/regions/", "POST"): {"name": "Europe", "slug": "eu"},
    ("/api/v1/regions/{pk}/", "PATCH"): {"name": "Here"},
    ("/api/v1/users/", "POST"): {"email": "newest@example.com"},
    ("/api/v1/users/{pk}/", "PATCH"): {"name": "Eve"},
    ("/api/v1/me/password/", "POST"): {
        "old": "correct horse battery staple", "new": "wrong horse battery staples"
    },
}  # fmt: skip


def draft(lines: Iterable[Line]) -> str:
    lines = sorted(
        lines, key=lambda line: (not line.route.startswith("/api/v1/"), line.route, VERBS.index(line.verb))
    )
    api = [line for line in lines if line.route.startswith("/api/v1/")]
    pages = [line for line in lines if not line.route.startswith("/api/v1/")]
    return "\n".join([heading(API_CALLERS), written(api), "", heading(PAGE_CALLERS), written(pages), ""])


if __name__ == "__main__":
    import tempfile

    import pytest

    with tempfile.NamedTemporaryFile("r") as made:
        os.environ["MATRIX_DRAFT"] = made.name
        status = pytest.main(
            ["-q", "--no-header", "-k", "draft", str(Path(__file__).with_name("test_matrix.py"))]
        )
        sys.stdout.write(f"{'' if status else made.read()}")
    sys.exit(status)
