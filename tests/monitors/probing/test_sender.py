import threading
import time

import pytest

from monitors.probing import sender as module
from monitors.probing.outcome import Outcome, Reason
from monitors.probing.sender import BATCH, MOST_UNSENT, Sender


def outcome(number: int) -> Outcome:
    return Outcome(monitor_id=number, region="default", scheduled_at=1, started_at=1.5, reason=Reason.ok)


class Broker:
    """Takes messages, or refuses them while it is `down`."""

    def __init__(self):
        self.messages: list[list[list]] = []
        self.down: Exception | None = None
        self.attempts = 0
        self.slow = threading.Event()
        self.slow.set()

    def publish(self, outcomes):
        self.attempts += 1
        assert self.slow.wait(10)
        if self.down:
            raise self.down
        self.messages.append(list(outcomes))

    @property
    def received(self) -> list[int]:
        return [wire[0] for message in self.messages for wire in message]


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def sender(broker):
    sender = Sender(broker.publish, lambda: True)
    sender.start()
    yield sender
    sender.stop(5)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.01)


def test_sends_outcomes_in_batches_and_in_order(broker, sender):
    for number in range(2 * BATCH + 50):
        sender.put(outcome(number))
    wait_for(lambda: len(broker.received) == 2 * BATCH + 50)
    assert broker.received == list(range(2 * BATCH + 50))
    assert max(map(len, broker.messages)) <= BATCH


def test_sends_a_heartbeat_when_there_is_nothing_else_to_say(broker, sender):
    wait_for(lambda: [] in broker.messages)


def test_sends_no_heartbeat_of_a_loop_that_hangs(broker):
    sender = Sender(broker.publish, lambda: False)
    sender.start()
    sender.put(outcome(1))
    wait_for(lambda: broker.received == [1])
    assert sender.stop(5) == 0
    assert [] not in broker.messages


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), RuntimeError("READONLY")])
def test_keeps_outcomes_while_the_broker_is_away(broker, sender, error):
    broker.down = error
    for number in range(BATCH + 50):
        sender.put(outcome(number))
    wait_for(lambda: broker.attempts >= 2)
    assert broker.received == []
    broker.down = None
    wait_for(lambda: len(broker.received) == BATCH + 50)
    assert broker.received == list(range(BATCH + 50))


def test_drops_the_oldest_of_too_many_and_counts_them(broker, sender):
    broker.down = ConnectionRefusedError()
    for number in range(BATCH):
        sender.put(outcome(number))
    wait_for(lambda: broker.attempts)  # one batch is in hand
    for number in range(BATCH, MOST_UNSENT + 2 * BATCH):
        sender.put(outcome(number))
    dropped = sender.dropped
    assert dropped >= 1
    broker.down = None
    wait_for(lambda: len(broker.received) == MOST_UNSENT + 2 * BATCH - dropped)
    assert broker.received[-1] == MOST_UNSENT + 2 * BATCH - 1


def test_never_makes_the_loop_wait(broker, sender):
    broker.slow.clear()
    sender.put(outcome(0))
    wait_for(lambda: broker.attempts)
    for number in range(1, 500):
        sender.put(outcome(number))  # would hang here
    broker.slow.set()
    wait_for(lambda: len(broker.received) == 500)


def test_drops_what_can_never_be_sent(broker, sender):
    broker.down = module.EncodeError("not JSON")
    sender.put(outcome(1))
    wait_for(lambda: broker.attempts)
    broker.down = None
    sender.put(outcome(2))
    wait_for(lambda: 2 in broker.received)
    assert 1 not in broker.received


def test_says_what_is_left_when_it_has_to_stop(broker):
    sender = Sender(broker.publish, lambda: True)
    sender.start()
    broker.down = ConnectionRefusedError()
    sender.put(outcome(1))
    assert sender.stop(0.2) == 1
    broker.down = None


def test_sends_the_rest_when_it_stops(broker):
    sender = Sender(broker.publish, lambda: True)
    sender.start()
    for number in range(3):
        sender.put(outcome(number))
    assert sender.stop(5) == 0
    assert broker.received == [0, 1, 2]
