"""Where the answers to POSTs with an Idempotency-Key are kept, and whose they are."""

import base64
import json
import zlib
from datetime import datetime

from django.conf import settings
from rest_framework.request import Request

from accounts.authentication import identity
from accounts.models import KeptAnswer
from healthmon.lib.api import Conflict
from healthmon.lib.clock import now as read_clock
from healthmon.lib.idempotency import KEPT_FOR, Answer, Idempotent, Name
from healthmon.lib.sealing import SealBroken, seal, unseal


class Answers:
    """`healthmon.lib.idempotency.Store` in the database."""

    def find(self, name: Name, since: datetime) -> tuple[str, Answer] | None:
        row = KeptAnswer.objects.filter(**name._asdict(), created_at__gt=since).first()
        if row is None:
            return None
        try:
            packed = unseal(settings.HEALTHMON_FIELD_KEYS, row.sealed_answer, _context(name))
        except SealBroken:
            # It was done, so it must not be done again; but what was answered cannot be told any more.
            raise Conflict(
                "This request was answered before, and the key that opens the answer is gone. Look whether it is done."
            ) from None
        return row.fingerprint, Answer(*json.loads(zlib.decompress(base64.b64decode(packed))))

    def keep(self, name: Name, fingerprint: str, answer: Answer, now: datetime) -> None:
        packed = base64.b64encode(zlib.compress(json.dumps(answer).encode())).decode()
        row = KeptAnswer(
            **name._asdict(),
            fingerprint=fingerprint,
            sealed_answer=seal(settings.HEALTHMON_FIELD_KEYS, packed, _context(name)),
            created_at=now,
        )
        KeptAnswer.objects.bulk_create(
            [row],
            update_conflicts=True,  # one that is older than a day, and was not pruned yet
            unique_fields=["caller", "team", "key"],
            update_fields=["fingerprint", "sealed_answer", "created_at"],
        )


def _context(name: Name) -> str:
    return f"answer:{name}"


def prune(now: datetime) -> int:
    """Forget what may be forgotten, and return how many answers that were."""
    return KeptAnswer.objects.filter(created_at__lte=now - KEPT_FOR).delete()[0]


class RetrySafe(Idempotent):
    """A view of somebody who is logged in, whose POSTs honour `Idempotency-Key`; it comes first among the bases."""

    answers = Answers()

    def idempotency_scope(self, request: Request) -> tuple[str, int | None]:
        team = getattr(self, "team", None)  # of `TeamScoped` views
        return identity(request), team.pk if team else None

    def idempotency_now(self) -> datetime:
        return read_clock()
