"""Order is kept, whatever the state of a lane and whoever answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError, RemoteViolation
from conchrec.proxy.relay.lane import HELD_BYTES, HELD_MESSAGES, Lane, ReplyOrder

Messages = list[tuple[int, bytes]]


def lane_of(log: list[tuple[str, int, bytes]]) -> Lane:
    return Lane(
        lambda message, body: log.append(("observed", message, body)),
        lambda message, body: log.append(("passed", message, body)),
    )


messages = st.lists(st.tuples(st.integers(93, 100), st.binary(max_size=4)), max_size=20)


@given(messages, messages)
def test_what_was_held_leaves_first_and_in_order(before: Messages, after: Messages) -> None:
    log: list[tuple[str, int, bytes]] = []
    lane = lane_of(log)
    for message in before:
        lane.push(*message)
    assert log == []
    lane.open()
    for message in after:
        lane.push(*message)
    assert [entry[1:] for entry in log if entry[0] == "passed"] == before + after
    # Each was observed right before it was passed on.
    assert [entry[0] for entry in log] == ["observed", "passed"] * len(before + after)


def test_what_arrives_during_the_replay_queues_up_behind_it() -> None:
    passed: list[bytes] = []

    def forward(message: int, body: bytes) -> None:
        passed.append(body)
        if body == b"1":
            lane.push(94, b"3")

    lane = Lane(lambda message, body: None, forward)
    lane.push(94, b"1")
    lane.push(94, b"2")
    lane.open()
    assert passed == [b"1", b"2", b"3"]


@given(messages, st.lists(st.integers(0, 25)))
def test_a_gated_lane_observes_at_once_and_passes_when_released(pushed: Messages, marks: list[int]) -> None:
    log: list[tuple[str, int, bytes]] = []
    lane = lane_of(log)
    asked = 0

    def gate() -> None:
        nonlocal asked
        asked += 1

    lane.open(gate)
    for message in pushed:
        lane.push(*message)
    assert asked == len(pushed)
    assert [entry[0] for entry in log] == ["observed"] * len(pushed)
    highest = 0
    for mark in marks:
        lane.release(mark)
        highest = max(highest, min(mark, len(pushed)))
        assert [entry[1:] for entry in log if entry[0] == "passed"] == pushed[:highest]
    lane.release(lane.mark())
    assert [entry[1:] for entry in log if entry[0] == "passed"] == pushed
    assert lane.pending == 0


def test_what_can_not_be_observed_is_not_passed_on() -> None:
    passed: list[bytes] = []

    def observe(message: int, body: bytes) -> None:
        raise RecordingError("full")

    lane = Lane(observe, lambda message, body: passed.append(body))
    lane.open()
    with pytest.raises(RecordingError):
        lane.push(94, b"x")
    assert passed == []


def test_a_flood_before_the_other_side_is_there_is_refused() -> None:
    lane = Lane(lambda message, body: None, lambda message, body: None)
    for _ in range(HELD_MESSAGES):
        lane.push(98, b"")
    with pytest.raises(RemoteViolation):
        lane.push(98, b"")
    other = Lane(lambda message, body: None, lambda message, body: None)
    with pytest.raises(RemoteViolation):
        other.push(94, b"x" * (HELD_BYTES + 1))


def test_our_own_answers_wait_for_their_turn() -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    order.expect()
    order.answer(False)
    order.expect()
    assert sent == []
    order.accept_reply(True)
    assert sent == [True, False]
    order.accept_reply(False)
    assert sent == [True, False, False]
    order.accept_reply(True)  # nobody asked
    assert sent == [True, False, False]


@given(st.lists(st.sampled_from(["pass", "yes", "no"]), max_size=20), st.data())
def test_replies_come_in_the_order_of_the_questions(asked: list[str], data: st.DataObject) -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    expected: list[bool] = []
    for one in asked:
        if one == "pass":
            order.expect()
            expected.append(data.draw(st.booleans()))
        else:
            order.answer(one == "yes")
            expected.append(one == "yes")
    for one, reply in zip(asked, expected, strict=True):
        if one == "pass":
            order.accept_reply(reply)
    assert sent == expected


def test_settling_answers_all_that_waits() -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    order.expect()
    order.answer(False)
    order.expect()
    order.settle(True)
    assert sent == [True, False, True]
