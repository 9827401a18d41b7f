"""Where messages lead: what a signed link stands for, and whose it is not."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import signing
from hypothesis import given
from hypothesis import strategies as st

from notifications import links
from notifications.links import LASTS, Acknowledgement, LinkExpired, LinkInvalid
from notifications.messages import KINDS, Facts

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def base(settings):
    settings.HEALTHMON_BASE_URL = "https://hm.example"


def token(incident_ids=(7,), channel_id=3, now=NOW):
    url = links.acknowledge_url(incident_ids, channel_id, now)
    return re.fullmatch(r"https://hm\.example/acknowledge/([\w.-]+)/", url)[1]


NAMED = [
    # incidents, channel, what the link stands for
    ([7], 3, Acknowledgement((7,), 3)),
    ([7], None, Acknowledgement((7,), None)),
    ([9, 7, 9], 3, Acknowledgement((7, 9), 3)),
    (range(2_000_000_000, 2_000_000_050), 2**31, Acknowledgement(tuple(range(2_000_000_000, 2_000_000_050)), 2**31)),
]  # fmt: skip


@pytest.mark.parametrize(("incident_ids", "channel_id", "named"), NAMED)
def test_stands_for_what_it_was_made_for(incident_ids, channel_id, named):
    assert links.read_acknowledge(token(incident_ids, channel_id), NOW) == named


@pytest.mark.parametrize("incident_ids", [[], range(51)])
def test_is_not_made_for_none_or_for_too_many(incident_ids):
    assert links.acknowledge_url(incident_ids, 3, NOW) == ""


def test_is_short_enough_for_a_text_message_of_many():
    assert len(links.acknowledge_url([1_234_567], 321, NOW)) < 130
    assert len(links.acknowledge_url(range(1_234_567, 1_234_617), 321, NOW)) < 400


def test_lasts_seven_days():
    made = token()
    assert links.read_acknowledge(made, NOW + LASTS - timedelta(seconds=1))
    for late in (LASTS, LASTS + timedelta(days=365)):
        with pytest.raises(LinkExpired):
            links.read_acknowledge(made, NOW + late)


def test_takes_no_other_signature():
    later = int((NOW + timedelta(days=1)).timestamp())
    ours = signing.Signer(salt="healthmon.acknowledge", sep=".")
    assert links.read_acknowledge(ours.sign_object([later, 3, 7]), NOW) == Acknowledgement((7,), 3)
    others = [
        signing.Signer(salt="healthmon.acknowledge", sep=".", key="another installation"),
        signing.Signer(salt="healthmon.unsubscribe", sep="."),
        signing.Signer(sep="."),
        signing.TimestampSigner(salt="healthmon.acknowledge", sep="."),
    ]
    for other in others:
        with pytest.raises(LinkInvalid):
            links.read_acknowledge(other.sign_object([later, 3, 7]), NOW)


def test_is_broken_by_every_single_change():
    made = token([7, 8], 3)
    for place in range(len(made)):
        for other in "AZaz09-_.":
            if other != made[place]:
                changed = made[:place] + other + made[place + 1 :]
                # The last character of base64 has bits that stand for nothing; it is compared as text all the same.
                with pytest.raises(LinkInvalid):
                    links.read_acknowledge(changed, NOW)


ODD = [
    "",
    ".",
    "..",
    "a.b",
    "x" * 100_000,
    "." * 5_000,
    "\0.\0",
    "ä.ö",
    "../../admin",
    ".eJwDAAAAAAE.x",
    "%2e%2e",
]


@pytest.mark.parametrize("text", ODD)
def test_reads_nothing_into_what_is_no_token(text):
    with pytest.raises(LinkInvalid):
        links.read_acknowledge(text, NOW)


@given(st.text(max_size=200))
def test_only_ever_says_that_it_is_invalid(text):
    with pytest.raises(LinkInvalid):
        links.read_acknowledge(text, NOW)


# --- the links of a message -------------------------------------------------------------------------------------


def fact(runbook_url="https://wiki.example/shop"):
    return Facts(subject="s", text="t", payload={"data": {"monitor": {"runbook_url": runbook_url}}})


NO_MONITOR = Facts(subject="s", text="t", payload={"data": {"monitor": None}})


def labels(kind, incident_ids, *facts):
    return list(links.of(kind, incident_ids, facts, 3, NOW))


OF_ONE = {
    "opened": ["Acknowledge", "Runbook", "Incident"],
    "reminder": ["Acknowledge", "Runbook", "Incident"],
    "escalated": ["Acknowledge", "Runbook", "Incident"],
    "acknowledged": ["Runbook", "Incident"],
    "resolved": ["Incident"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_offers_what_helps_with_a_message_the_most_urgent_first(kind):
    if kind in OF_ONE:
        assert labels(kind, [7], fact()) == OF_ONE[kind]
    else:
        assert labels(kind, [], fact()) == ["Runbook"]
        assert labels(kind, [], NO_MONITOR) == []


def test_leads_to_what_the_message_tells_of():
    found = links.of("opened", [7], [fact()], 3, NOW)
    assert found["Incident"] == "https://hm.example/admin/incidents/incident/7/change/"
    assert found["Runbook"] == "https://wiki.example/shop"
    given = found["Acknowledge"].rpartition("acknowledge/")[2].strip("/")
    assert links.read_acknowledge(given, NOW) == Acknowledgement((7,), 3)


def test_offers_one_link_for_all_that_are_told_as_one():
    other = fact("https://wiki.example/other")
    assert labels("opened", [7, 8], fact(), fact()) == ["Acknowledge", "Runbook", "Incidents"]
    assert labels("opened", [7, 8], fact(), other) == ["Acknowledge", "Incidents"]
    assert labels("opened", range(51), *[fact()] * 51) == ["Runbook", "Incidents"]
    assert (
        links.of("opened", [7, 8], [fact()], 3, NOW)["Incidents"]
        == "https://hm.example/admin/incidents/incident/"
    )
