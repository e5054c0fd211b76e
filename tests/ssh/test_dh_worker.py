"""The program of the helper process: frames and powers."""

from __future__ import annotations

import ast
import contextlib
import sys
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.ssh import dh_worker
from conchrec.ssh.dh_groups import GROUP1, GROUP14, GROUP16
from conchrec.ssh.dh_worker import MAX_FRAME, frame, parse_numbers, serve


def answers(requests: bytes) -> list[tuple[int, ...]]:
    written = BytesIO()
    serve(BytesIO(requests), written)
    data, powers = written.getvalue(), []
    while data:
        size = int.from_bytes(data[:4], "big")
        powers.append(parse_numbers(data[4 : 4 + size]))
        data = data[4 + size :]
    return powers


@given(st.lists(st.integers(0, 1 << 5000), max_size=6))
def test_parses_encoded_numbers(numbers: list[int]) -> None:
    written = frame(numbers)
    assert int.from_bytes(written[:4], "big") == len(written) - 4
    assert parse_numbers(written[4:]) == tuple(numbers)


@given(st.binary(max_size=100))
def test_rejects_truncated_numbers(junk: bytes) -> None:
    whole = frame([1 << 400, 3])[4:]
    for size in range(1, len(whole)):
        if size != 4 + 51:
            with pytest.raises(ValueError, match="beyond the end"):
                parse_numbers(whole[:size])
    with contextlib.suppress(ValueError):
        assert all(number >= 0 for number in parse_numbers(junk))


def test_answers_each_request_in_order() -> None:
    requests = [(group.prime, group.exponent(), 2, group.prime - 2) for group in (GROUP1, GROUP14, GROUP16)]
    assert answers(b"".join(map(frame, requests))) == [
        (pow(2, exponent, prime), pow(base, exponent, prime)) for prime, exponent, _, base in requests
    ]


def test_ends_when_input_ends() -> None:
    whole = frame((23, 3, 2))
    for size in range(len(whole)):
        assert answers(whole[:size]) == []
    with pytest.raises(ValueError, match="too long"):
        answers((MAX_FRAME + 1).to_bytes(4, "big") + bytes(100))


def test_imports_only_standard_library() -> None:
    """It runs without site-packages and loads no code that could hold a key."""
    tree = ast.parse(Path(dh_worker.__file__).read_bytes())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)
