"""The state machine, as film strips (one letter a frame) and as properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.probing.outcome import FAILING, SILENT, Outcome, Reason
from monitors.state import Policy, State, Status, advance, overall

POLICY = Policy(failures_to_open=2, successes_to_close=1, recheck_seconds=5, interval_seconds=30)
FRAMES = {"o": Reason.ok, "s": Reason.slow, "x": Reason.status, "m": Reason.missed, "?": Reason.inconclusive}
LETTERS = {Status.NEW: "n", Status.UP: "u", Status.DEGRADED: "g", Status.DOWN: "D", Status.PAUSED: "p"}


def seen(reason: Reason, slot: int) -> Outcome:
    return Outcome(
        monitor_id=1, region="default", scheduled_at=slot, started_at=slot + 0.4, reason=reason, total_ms=100
    )


def film(frames: str, policy: Policy = POLICY) -> str:
    state, strip = State(), ""
    for index, frame in enumerate(frames):
        state = advance(state, seen(FRAMES[frame], 30 * (index + 1)), policy)
        strip += LETTERS[state.status]
    return strip


@pytest.mark.parametrize(
    ("failures_to_open", "successes_to_close", "frames", "statuses"),
    [
        # what is new is up at its first answer, and down only when that is confirmed
        (2, 1, "o", "u"),
        (2, 1, "s", "u"),
        (2, 1, "xx", "nD"),
        (1, 1, "x", "D"),
        # a failure on its own is nothing; failures in a row are
        (2, 1, "oxoxo", "uuuuu"),
        (2, 1, "oxx", "uuD"),
        (3, 1, "oxxoxxx", "uuuuuuD"),
        # back up after as many answers as are asked for, in a row
        (2, 1, "oxxo", "uuDu"),
        (2, 2, "oxxoo", "uuDDu"),
        (2, 2, "oxxoxoo", "uuDDDDu"),
        # slow: degraded after as many as it takes to open, and not by one
        (2, 1, "oso", "uuu"),
        (2, 1, "osso", "uugu"),
        (2, 2, "ossoo", "uuggu"),
        (2, 2, "ossoso", "uugggg"),
        (2, 1, "ossxx", "uuggD"),
        # an answer is an answer, also a slow one, to what was down
        (2, 1, "oxxs", "uuDu"),
        (2, 2, "oxxss", "uuDDg"),
        # what says nothing moves nothing, not even a run of failures
        (2, 1, "m?", "nn"),
        (2, 1, "ox?mx", "uuuuD"),
        (2, 2, "oxxo?o", "uuDDDu"),
    ],
)
def test_film_strip(failures_to_open, successes_to_close, frames, statuses):
    policy = replace(POLICY, failures_to_open=failures_to_open, successes_to_close=successes_to_close)
    assert film(frames, policy) == statuses


class TestRecheck:
    def test_follows_a_first_failure_after_the_time_it_was_seen(self):
        state = advance(State(Status.UP), seen(Reason.timeout, 1000), POLICY)
        assert state.recheck_at == 1006, "1000.4 + 0.1 + 5, in whole seconds"

    def test_ends_when_the_failure_is_confirmed(self):
        state = advance(State(Status.UP), seen(Reason.timeout, 1000), POLICY)
        assert advance(state, seen(Reason.timeout, 1006), POLICY).recheck_at is None

    def test_ends_when_the_failure_was_a_blip(self):
        state = advance(State(Status.UP), seen(Reason.timeout, 1000), POLICY)
        assert advance(state, seen(Reason.ok, 1006), POLICY).recheck_at is None

    def test_follows_a_first_success_that_is_not_enough_to_close(self):
        policy = replace(POLICY, successes_to_close=2)
        assert advance(State(Status.DOWN, failures=5), seen(Reason.ok, 1000), policy).recheck_at == 1006

    def test_is_not_asked_for_while_down(self):
        assert advance(State(Status.DOWN, failures=5), seen(Reason.dns, 1000), POLICY).recheck_at is None

    def test_is_left_to_the_next_slot_when_that_comes_as_soon(self):
        policy = replace(POLICY, interval_seconds=5)
        assert advance(State(Status.UP), seen(Reason.timeout, 1000), policy).recheck_at is None

    def test_stays_asked_for_when_the_answer_said_nothing(self):
        state = State(Status.UP, failures=1, seen_until=1000, recheck_at=1006)
        assert advance(state, seen(Reason.inconclusive, 1006), POLICY).recheck_at == 1006

    def test_is_later_than_its_slot_whatever_the_probers_clock_says(self):
        outcome = replace(seen(Reason.timeout, 1000), started_at=10.0)
        assert advance(State(Status.UP), outcome, POLICY).recheck_at == 1001


def test_a_paused_state_does_not_advance():
    paused = State(Status.PAUSED)
    assert advance(paused, seen(Reason.timeout, 1000), POLICY) is paused


@pytest.mark.parametrize("reason", sorted(FAILING))
def test_every_failing_reason_takes_a_monitor_down(reason):
    once = replace(POLICY, failures_to_open=1)
    assert advance(State(Status.UP), seen(reason, 1000), once).status is Status.DOWN


@pytest.mark.parametrize("reason", sorted(SILENT))
def test_every_silent_reason_leaves_all_but_the_slot(reason):
    state = State(Status.UP, failures=1, recheck_at=77, seen_until=30)
    assert advance(state, seen(reason, 60), POLICY) == replace(state, seen_until=60)


# --- properties ---------------------------------------------------------------------------------------

reasons = st.sampled_from(list(Reason))
policies = st.builds(
    Policy,
    failures_to_open=st.integers(1, 4),
    successes_to_close=st.integers(1, 4),
    recheck_seconds=st.integers(1, 60),
    interval_seconds=st.sampled_from([5, 30, 300]),
)
histories = st.lists(reasons, max_size=40).map(
    lambda seen_reasons: [seen(reason, 30 * (index + 1)) for index, reason in enumerate(seen_reasons)]
)


def run(history, policy, state=State()):  # noqa: B008 - State is frozen
    states = [state]
    for outcome in history:
        states.append(advance(states[-1], outcome, policy))
    return states


@given(histories, policies)
def test_never_opens_twice_without_a_close(history, policy):
    statuses = [state.status for state in run(history, policy)]
    turns = [
        now
        for before, now in zip(statuses, statuses[1:], strict=False)
        if (before == Status.DOWN) != (now == Status.DOWN)
    ]
    assert all(
        first != second for first, second in zip(turns, turns[1:], strict=False) if first == Status.DOWN
    )


@given(histories, policies, st.data())
def test_replaying_any_prefix_changes_nothing(history, policy, data):
    end = run(history, policy)[-1]
    again = history[: data.draw(st.integers(0, len(history)))]
    assert run(again, policy, end)[-1] == end


@given(histories, policies, st.randoms())
def test_the_order_of_late_results_does_not_matter(history, policy, random):
    end = run(history, policy)[-1]
    late = list(history)
    random.shuffle(late)
    assert run(late, policy, end)[-1] == end


@given(histories, policies)
def test_down_takes_as_many_failures_in_a_row_as_the_policy_says(history, policy):
    telling = [outcome for outcome in history if outcome.reason not in SILENT]
    states = run(telling, policy)
    for index, (before, now) in enumerate(zip(states, states[1:], strict=False)):
        if before.status is not Status.DOWN and now.status is Status.DOWN:
            run_of = telling[index - policy.failures_to_open + 1 : index + 1]
            assert len(run_of) == policy.failures_to_open
            assert all(outcome.reason in FAILING for outcome in run_of)


@given(histories, policies)
def test_what_says_nothing_may_as_well_not_have_been(history, policy):
    telling = [outcome for outcome in history if outcome.reason not in SILENT]
    with_silence, without = run(history, policy)[-1], run(telling, policy)[-1]
    assert replace(with_silence, seen_until=None) == replace(without, seen_until=None)


@pytest.mark.parametrize(
    ("statuses", "together"),
    [
        ("n", "n"),
        ("u", "u"),
        ("nu", "u"),  # what knows nothing has no vote
        ("ug", "g"),
        ("uD", "g"),  # half is not most
        ("uuD", "g"),
        ("uDD", "D"),
        ("nD", "D"),
        ("gD", "g"),
        ("D", "D"),
        ("p", "p"),
    ],
)
def test_overall(statuses, together):
    status_of = {letter: status for status, letter in LETTERS.items()}
    assert LETTERS[overall(status_of[letter] for letter in statuses)] == together
