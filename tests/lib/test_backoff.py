import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.lib.backoff import delay_seconds

SCHEDULE = [5, 60, 300]


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(1, 5), (2, 60), (3, 300), (4, None), (99, None)],
)
def test_waits_as_scheduled_until_that_is_exhausted(attempt, seconds):
    assert delay_seconds(attempt, SCHEDULE, jitter=0.5) == seconds


@given(st.floats(0, 1, exclude_max=True))
def test_moves_a_delay_by_a_fifth_at_most(jitter):
    assert 48 <= delay_seconds(2, SCHEDULE, jitter) <= 72


def test_has_nothing_to_wait_for_without_a_schedule():
    assert delay_seconds(1, [], jitter=0) is None
