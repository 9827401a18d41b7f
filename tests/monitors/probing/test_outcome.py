import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.probing import PROBES
from monitors.probing.expectations import parse_expected_status, status_matches
from monitors.probing.outcome import FAILING, SILENT, Outcome, Reason, Target, pace_ms

TARGET = Target(monitor_id=7, region="eu", scheduled_at=100, expires_at=130, url="https://a.example/")
FULL = Target(
    monitor_id=7, region="eu", scheduled_at=100, expires_at=130, kind="http", url="https://a.example/", method="POST",
    headers={"A": "1"}, body="b", sealed="token", timeout_seconds=2.5, expected_status="404", follow_redirects=False,
    verify_tls=False, degraded_after_ms=10, connection="reuse", urgent=True,
)  # fmt: skip
OUTCOME = Outcome(
    monitor_id=7, region="eu", scheduled_at=100, started_at=100.25, reason=Reason.status, status_code=500, total_ms=1.5,
    evidence={"url": "https://a.example/"},
)  # fmt: skip


@pytest.mark.parametrize("value", [TARGET, FULL, OUTCOME])
def test_comes_back_from_the_wire_as_it_went(value):
    wire = json.loads(json.dumps(value.to_wire()))
    assert type(value).from_wire(wire) == value


@pytest.mark.parametrize("value", [TARGET, FULL, OUTCOME])
def test_reads_rows_of_an_older_and_of_a_newer_publisher(value):
    row = value.to_wire()
    assert type(value).from_wire([*row, {"invented": "later"}]) == value
    required = [row[at] for at, field in enumerate(dataclasses.fields(value)) if _is_required(field)]
    oldest = type(value).from_wire(required)
    assert oldest.to_wire()[: len(required)] == required == row[: len(required)]


def test_never_moves_a_field():
    # The order is the wire format: add at the end, with a default.
    assert " ".join(Target.__slots__) == (
        "monitor_id region scheduled_at expires_at url kind method headers body sealed timeout_seconds"
        " expected_status follow_redirects verify_tls degraded_after_ms connection urgent"
    )
    assert " ".join(Outcome.__slots__) == (
        "monitor_id region scheduled_at started_at reason status_code total_ms dns_ms connect_ms tls_ms"
        " first_byte_ms detail evidence certificate_expires_at reused urgent"
    )


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@pytest.mark.parametrize("cls", [Target, Outcome])
@pytest.mark.parametrize(
    "garbage",
    [
        None, 7, "text", [], {}, {"monitor_id": 7}, [7], [7, "eu", 100], [7, "eu", 100, 130], ["x"] * 20, [None] * 20,
        ["7", "eu", 100, 130, "ok"], [7, "eu", "100", 130, "ok"], [7, "eu", 100, "130", "ok"], [7, "eu", 100, 130, []],
    ],
)  # fmt: skip
def test_refuses_what_never_travelled(cls, garbage):
    with pytest.raises(TypeError, match=f"not a {cls.__name__}"):
        cls.from_wire(garbage)


def test_keeps_the_reason_a_reason():
    row = OUTCOME.to_wire()
    assert Outcome.from_wire(json.loads(json.dumps(row))).reason is Reason.status
    row[4] = "invented later"
    with pytest.raises(TypeError, match="not a reason"):
        Outcome.from_wire(row)


def test_has_a_verdict_for_every_reason():
    assert {str(reason) for reason in SILENT} == {"missed", "inconclusive"}
    assert set(Reason) - SILENT - FAILING == {Reason.ok, Reason.slow}


@given(st.integers(1, 2**40))
def test_gives_each_monitor_a_place_in_its_second(monitor_id):
    assert 0 <= pace_ms(monitor_id) < 1000
    assert pace_ms(monitor_id) == pace_ms(monitor_id)


def test_spreads_neighbours_over_the_second():
    tenths = [pace_ms(monitor_id) // 100 for monitor_id in range(1, 1001)]
    assert all(80 <= tenths.count(tenth) <= 120 for tenth in range(10))


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-299", ((200, 299),)),
        (" 200 , 204,301-308", ((200, 200), (204, 204), (301, 308))),
        ("100-599", ((100, 599),)),
    ],
)
def test_reads_expected_status(text, ranges):
    assert parse_expected_status(text) == ranges


@pytest.mark.parametrize(
    "text", ["", ",", "2xx", "200-", "-200", "299-200", "99", "600", "20٠", "200;204", "1e2"]
)
def test_refuses_expected_status(text):
    with pytest.raises(ValueError, match=r"."):
        parse_expected_status(text)


def test_matches_both_ends_of_a_range():
    assert [code for code in (199, 200, 299, 300) if status_matches("200-299", code)] == [200, 299]


def test_knows_a_probe_for_every_kind():
    assert "http" in PROBES
