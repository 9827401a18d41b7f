"""Where messages lead: addresses in the console, and the signed ones that acknowledge without it.

A signed link is made when a message is sent and stored nowhere. Whoever has it can do one thing, for seven days:
acknowledge the incidents that it names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core import signing

from healthmon.lib.clock import from_epoch
from notifications.messages import ASKING, Facts

LASTS = timedelta(days=7)
MOST_INCIDENTS = 50  # some 250 characters of link
_MOST_CHARS = 2000

# A purpose of its own: no other signature of healthmon opens this door, and this one no other. The dot, unlike the
# usual colon, is taken for a part of the address wherever addresses are found in plain text.
_signer = signing.Signer(salt="healthmon.acknowledge", sep=".")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a signed link stands for. channel_id: where it was sent to, None if nowhere in particular."""

    incident_ids: tuple[int, ...]
    channel_id: int | None


class LinkInvalid(Exception):
    """Nothing that we signed, or not for this."""


class LinkExpired(LinkInvalid):
    """It was good once."""


def incident_url(incident_id: int | None) -> str:
    """This will return where a person finds an incident in the console; empty without one."""
    return (
        f"{settings.HEALTHMON_BASE_URL}/admin/incidents/incident/{incident_id}/change/" if incident_id else ""
    )


def acknowledge_url(incident_ids: Sequence[int], channel_id: int | None, now: datetime) -> str:
    """This will return a link that acknowledges incidents; empty for none, and for more than MOST_INCIDENTS."""
    ids = sorted(set(incident_ids))
    if not 0 < len(ids) <= MOST_INCIDENTS:
        return ""
    expires = int((now + LASTS).timestamp())
    token = _signer.sign_object([expires, channel_id or 0, *ids], compress=True)
    return f"{settings.HEALTHMON_BASE_URL}/acknowledge/{token}/"


def read_acknowledge(token: str, now: datetime) -> Acknowledgement:
    """This will return what a link's token stands for. Raises LinkInvalid, or LinkExpired if it was good once."""
    if len(token) > _MOST_CHARS:
        raise LinkInvalid
    try:
        expires, channel_id, *ids = _signer.unsign_object(token)
    except (signing.BadSignature, ValueError):
        raise LinkInvalid from None
    if now >= from_epoch(expires):
        raise LinkExpired
    return Acknowledgement(tuple(ids), channel_id or None)


def of(
    kind: str, incident_ids: Sequence[int], facts: Sequence[Facts], channel_id: int | None, now: datetime
) -> dict[str, str]:
    """This will return the links of a message: what to call each → where it leads, the most urgent first.

    incident_ids: of all that the message tells of. facts: of all that it tells of.
    """
    found = {}
    if kind in ASKING:
        found["Acknowledge"] = acknowledge_url(incident_ids, channel_id, now)
    if kind != "resolved":
        monitors = [fact.payload["data"]["monitor"] or {} for fact in facts]
        runbooks = {monitor.get("runbook_url", "") for monitor in monitors}
        found["Runbook"] = runbooks.pop() if len(runbooks) == 1 else ""
    if len(incident_ids) == 1:
        found["Incident"] = incident_url(incident_ids[0])
    elif incident_ids:
        found["Incidents"] = f"{settings.HEALTHMON_BASE_URL}/admin/incidents/incident/"
    return {label: url for label, url in found.items() if url}
