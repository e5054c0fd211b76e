"""The program of the helper process: frames, powers and key pairs."""

from __future__ import annotations

import ast
import contextlib
import sys
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.ssh import kex_worker
from conchrec.ssh.dh_groups import GROUP1, GROUP14, GROUP16
from conchrec.ssh.kems import SNTRUP761
from conchrec.ssh.kex_worker import (
    KEY_PAIR,
    MAX_FRAME,
    POWERS,
    encode_numbers,
    encode_strings,
    frame,
    parse_strings,
    serve,
)


def power_request(*numbers: int) -> bytes:
    return frame(POWERS + encode_numbers(numbers))


def answers(requests: bytes) -> list[tuple[bytes, ...]]:
    written = BytesIO()
    serve(BytesIO(requests), written)
    data, bodies = written.getvalue(), []
    while data:
        size = int.from_bytes(data[:4], "big")
        bodies.append(parse_strings(data[4 : 4 + size]))
        data = data[4 + size :]
    return bodies


@given(st.lists(st.binary(max_size=600), max_size=6))
def test_parses_encoded_strings(strings: list[bytes]) -> None:
    written = frame(encode_strings(strings))
    assert int.from_bytes(written[:4], "big") == len(written) - 4
    assert parse_strings(written[4:]) == tuple(strings)


@given(st.integers(0, 1 << 5000))
def test_encodes_numbers_without_leading_zeros(number: int) -> None:
    (raw,) = parse_strings(encode_numbers((number,)))
    assert int.from_bytes(raw, "big") == number
    assert not raw.startswith(b"\0")


@given(st.binary(max_size=100))
def test_rejects_truncated_strings(junk: bytes) -> None:
    whole = encode_numbers([1 << 400, 3])
    for size in range(1, len(whole)):
        if size != 4 + 51:
            with pytest.raises(ValueError, match="beyond the end"):
                parse_strings(whole[:size])
    with contextlib.suppress(ValueError):
        assert b"".join(parse_strings(junk)) in junk or len(parse_strings(junk)) > 1


def test_answers_each_request_in_order() -> None:
    requests = [(group.prime, group.exponent(), 2, group.prime - 2) for group in (GROUP1, GROUP14, GROUP16)]
    assert answers(b"".join(power_request(*request) for request in requests)) == [
        parse_strings(encode_numbers((pow(2, exponent, prime), pow(base, exponent, prime))))
        for prime, exponent, _, base in requests
    ]


def test_makes_another_key_pair_for_each_request() -> None:
    pairs = answers(frame(KEY_PAIR) * 2)
    assert len({key for pair in pairs for key in pair}) == 4
    for public, private in pairs:
        ciphertext, secret = SNTRUP761.encapsulate(public)
        assert SNTRUP761.key_pair(public, private).decapsulate(ciphertext) == secret


def test_ends_when_input_ends() -> None:
    whole = power_request(23, 3, 2)
    for size in range(len(whole)):
        assert answers(whole[:size]) == []
    for request in (bytes((0xFF,)), bytes((0, 1, 0))):
        assert answers(request) == []
    with pytest.raises(ValueError, match="too long"):
        answers((MAX_FRAME + 1).to_bytes(4, "big") + bytes(100))
    for body in (b"", b"\2", b"\xff" + encode_numbers((23, 3, 2))):
        with pytest.raises(ValueError, match="unknown request"):
            answers(frame(body))


class Pipe(RawIOBase):
    """Reads and writes few bytes at a time, and keeps the memory that was written, not a copy."""

    def __init__(self, requests: bytes, on_wait: Any) -> None:
        self._requests = BytesIO(requests)
        self._on_wait = on_wait
        self.copy = b""
        self.written: list[memoryview] = []

    def read(self, size: int = -1, /) -> bytes:
        piece = self._requests.read(min(size, 3))
        if not piece:
            self._on_wait()
        return piece

    def write(self, data: Any, /) -> int:
        piece = data[:700]
        self.written.append(piece)
        self.copy += bytes(piece)
        return len(piece)


def test_keeps_no_secret_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private key is not referenced any more, and what was written is overwritten."""
    pair = kex_worker.key_pair()
    counts = []
    monkeypatch.setattr(kex_worker, "key_pair", lambda: pair)
    before = [sys.getrefcount(key) for key in pair]
    pipe = Pipe(frame(KEY_PAIR), lambda: counts.append([sys.getrefcount(key) for key in pair]))
    serve(cast(Any, pipe), cast(Any, pipe))
    assert counts == [before]
    assert pipe.copy == frame(encode_strings(pair))
    assert len(pipe.written) > 2
    assert not any(b"".join(map(bytes, pipe.written)))


def test_imports_only_standard_library_and_pqcrypto() -> None:
    """It runs without site-packages and loads no code that could hold a key of the proxy."""
    tree = ast.parse(Path(kex_worker.__file__).read_bytes())
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
    assert imported - {"pqcrypto"} <= set(sys.stdlib_module_names)
