"""What a recording keeps of the requested variables, whichever of them the target accepts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.format.environment import VARIABLES, Environment

NAMES = st.sampled_from([b"LC_X", b"LC_Y", b"LC_\xff"])
VALUES = st.sampled_from([b"", b"good", b"evil", b"\xff", b"x" * 5000])


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


@given(st.lists(st.tuples(NAMES, VALUES), max_size=40))
def test_keeps_each_value_or_its_digest(requests: list[tuple[bytes, bytes]]) -> None:
    environment = Environment()
    kept = set()
    for name, value in requests:
        _, _, replaced = environment.set(name, value)
        if replaced is not None:
            kept.add(replaced.sha256 or digest(replaced.text.encode()))
    fields = environment.fields()
    digests, values = fields.get("env_digests", {}), fields.get("env", {})
    assert isinstance(digests, dict)
    assert isinstance(values, dict)
    kept |= {each["sha256"] for each in digests.values()}
    kept |= {digest(text.encode()) for label, text in values.items() if label not in digests}
    assert {digest(value) for _, value in requests} <= kept


def test_returns_replaced_value_once() -> None:
    environment = Environment()
    assert environment.set(b"LC_X", b"evil")[2] is None
    for number in range(VARIABLES):
        environment.set(b"LC_%d" % number, b"")
    replaced = environment.set(b"LC_X", b"good")[2]
    assert replaced is not None
    assert replaced.text == "evil"
    assert environment.set(b"LC_X", b"good")[2] is None


@pytest.mark.parametrize("value", [b"", b"x" * 5000])
def test_hashes_variable_that_is_requested_without_end(value: bytes) -> None:
    environment = Environment()
    for number in range(2 * VARIABLES + 2):
        environment.set(b"LC_X", value + b"%d" % number)
    assert not environment.is_complete
    assert environment.fields()["env_more"]["count"] == VARIABLES + 1  # type: ignore[index]


def test_is_incomplete_after_a_cut_value_was_replaced() -> None:
    environment = Environment()
    environment.set(b"LC_X", b"x" * 5000)
    environment.set(b"LC_X", b"good")
    assert not environment.is_complete
