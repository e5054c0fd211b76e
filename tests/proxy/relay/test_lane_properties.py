"""Lanes under any order of events, compared with a list of the messages and how many may be forwarded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conchrec.errors import RecordingError, RemoteViolation
from conchrec.proxy.relay.lane import HELD_BYTES, HELD_MESSAGES, Lane, ReplyOrder

numbers = st.integers(93, 100)
bodies = st.binary(max_size=4)


class Order(RuleBasedStateMachine):
    """A lane from the held state to its end. Forwarding some messages causes others, as an answer may."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(self.observe, self.forward)
        self.pushed: list[tuple[int, bytes]] = []
        self.observed: list[tuple[int, bytes]] = []
        self.passed: list[tuple[int, bytes]] = []
        self.echoes: dict[bytes, int] = {}
        self.gated = False
        self.gate_calls = 0
        self.marks: list[int] = [0]
        self.may_pass = 0

    def observe(self, message: int, body: bytes) -> None:
        self.observed.append((message, body))

    def forward(self, message: int, body: bytes) -> None:
        self.passed.append((message, body))
        if self.echoes.get(body, 0):
            self.echoes[body] -= 1
            self.push_now(message, body)

    def push_now(self, message: int, body: bytes) -> None:
        self.pushed.append((message, body))
        self.lane.push(message, body)

    @rule(message=numbers, body=bodies)
    def push(self, message: int, body: bytes) -> None:
        self.push_now(message, body)

    @rule(message=numbers, body=bodies, times=st.integers(1, 3))
    def push_with_an_echo(self, message: int, body: bytes, times: int) -> None:
        self.echoes[body] = times
        self.push_now(message, body)

    @precondition(lambda self: self.lane.is_held)
    @rule()
    def open(self) -> None:
        self.lane.open()

    @precondition(lambda self: self.lane.is_held)
    @rule()
    def open_with_a_gate(self) -> None:
        self.gated = True
        self.lane.open(self.gate)

    def gate(self) -> None:
        self.gate_calls += 1

    @precondition(lambda self: self.gated)
    @rule()
    def mark(self) -> None:
        assert self.lane.mark() == len(self.pushed)
        self.marks.append(self.lane.mark())

    @precondition(lambda self: self.gated)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """In any order, also earlier marks."""
        mark = data.draw(st.sampled_from(self.marks))
        self.may_pass = max(self.may_pass, mark)
        self.lane.release(mark)

    @invariant()
    def in_order(self) -> None:
        assert self.passed == self.pushed[: len(self.passed)]
        assert self.observed == self.pushed[: len(self.observed)]
        assert len(self.passed) <= len(self.observed)

    @invariant()
    def as_far_as_it_may(self) -> None:
        if self.lane.is_held:
            assert not self.observed
        elif self.gated:
            assert (len(self.observed), len(self.passed)) == (len(self.pushed), self.may_pass)
            assert self.gate_calls == len(self.pushed)
        else:
            assert self.passed == self.pushed
        assert self.lane.pending == len(self.pushed) - len(self.passed)


TestOrder = Order.TestCase
TestOrder.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


class Replies(RuleBasedStateMachine):
    """Answers of the proxy and of the far end, while requests arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bool] = []
        self.order = ReplyOrder(self.sent.append)
        #: The answer to each request; None until the far end has given it.
        self.turns: list[bool | None] = []

    @rule()
    def expect(self) -> None:
        self.order.expect()
        self.turns.append(None)

    @rule(success=st.booleans())
    def answer(self, success: bool) -> None:
        self.order.answer(success)
        self.turns.append(success)

    @rule(success=st.booleans())
    def accept_reply(self, success: bool) -> None:
        """Also without a request."""
        self.order.accept_reply(success)
        if None in self.turns:
            self.turns[self.turns.index(None)] = success

    @rule(success=st.booleans())
    def settle(self, success: bool) -> None:
        self.order.settle(success)
        self.turns = [success if turn is None else turn for turn in self.turns]

    @invariant()
    def each_request_has_one_answer_in_its_turn(self) -> None:
        waiting = self.turns.index(None) if None in self.turns else len(self.turns)
        assert self.sent == self.turns[:waiting]


TestReplies = Replies.TestCase
TestReplies.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(numbers, bodies), min_size=1, max_size=20), st.data())
def test_stops_at_message_on_which_observer_fails(
    pushed: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """In each state: messages before it are forwarded or wait; the message itself is never forwarded."""
    fails_at = data.draw(st.integers(0, len(pushed) - 1))
    held = data.draw(st.integers(0, len(pushed)))
    gate: Callable[[], None] | None = (lambda: None) if data.draw(st.booleans()) else None
    observed: list[tuple[int, bytes]] = []
    passed: list[tuple[int, bytes]] = []

    def observe(message: int, body: bytes) -> None:
        if len(observed) == fails_at:
            raise RecordingError("full")
        observed.append((message, body))

    lane = Lane(observe, lambda message, body: passed.append((message, body)))

    def all_of_it() -> None:
        for message in pushed[:held]:
            lane.push(*message)
        lane.open(gate)
        for message in pushed[held:]:
            lane.push(*message)

    with pytest.raises(RecordingError):
        all_of_it()
    assert observed == pushed[:fails_at]
    assert passed == ([] if gate is not None else observed)
    lane.release(lane.mark())
    assert passed == observed


@given(st.lists(st.integers(0, HELD_BYTES // 3), max_size=12))
def test_limits_held_bytes(sizes: list[int]) -> None:
    """Exactly: up to the limit bytes are held, and each message beyond it is refused."""
    lane = Lane(lambda message, body: None, lambda message, body: None)
    total = 0
    for size in sizes:
        total += size
        if total <= HELD_BYTES:
            lane.push(94, bytes(size))
        else:
            with pytest.raises(RemoteViolation):
                lane.push(94, bytes(size))
    assert lane.pending <= min(len(sizes), HELD_MESSAGES)
