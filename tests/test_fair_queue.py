"""The queue whose names take turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.fair_queue import FairQueue

NAMES = st.sampled_from("abc")


def drained(queue: FairQueue[int]) -> list[tuple[str, int]]:
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    return items


def test_alternates_names_and_keeps_order_of_each() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(4):
        queue.add("flood", number)
    queue.add("late", 10)
    queue.add("later", 20)
    assert (len(queue), queue.count("flood"), queue.count("nobody")) == (6, 4, 0)
    assert drained(queue) == [
        ("flood", 0), ("late", 10), ("later", 20), ("flood", 1), ("flood", 2), ("flood", 3)
    ]  # fmt: skip
    assert not queue


def test_returns_item_that_was_put_back_next() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.add("a", 1)
    queue.add("b", 2)
    queue.add_first("b", 0)
    assert drained(queue) == [("b", 0), ("a", 1), ("b", 2)]


def test_keeps_turn_of_names_that_are_not_allowed() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.add("a", 1)
    queue.add("b", 2)
    assert queue.take(lambda name: name == "b") == ("b", 2)
    assert queue.take(lambda name: name == "b") is None
    assert queue.take() == ("a", 1)


def test_reports_longest_line() -> None:
    queue: FairQueue[int] = FairQueue()
    with pytest.raises(ValueError, match="empty"):
        queue.longest()
    queue.add("a", 1)
    queue.add("b", 2)
    queue.add("b", 3)
    assert queue.longest() == ("b", 3)


@given(st.lists(st.one_of(NAMES, st.none(), st.integers(0, 20)), max_size=60))
def test_bounds_wait_to_one_turn_of_each_other_name(steps: list[str | int | None]) -> None:
    """A name adds its next item, None takes one, a number leaves the queue."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[int, str] = {}
    passed_over: dict[str, set[str]] = {}
    for number, step in enumerate(steps, 100):
        if isinstance(step, str):
            queue.add(step, number)
            waiting[number] = step
        elif step is not None:
            for item in list(waiting)[step : step + 1]:
                queue.discard(waiting.pop(item), item)
                queue.discard("a", item)
        elif (entry := queue.take()) is not None:
            name, item = entry
            assert waiting.pop(item) == name
            assert item < min((other for other, its in waiting.items() if its == name), default=item + 1)
            passed_over.pop(name, None)
            for other in set(waiting.values()) - {name}:
                assert name not in passed_over.setdefault(other, set()), "twice before another's turn"
                passed_over[other].add(name)
        passed_over = {name: over for name, over in passed_over.items() if name in waiting.values()}
        assert len(queue) == len(waiting)
        assert [queue.count(name) for name in "abc"] == [list(waiting.values()).count(name) for name in "abc"]
