"""The data types of RFC 4251 section 5, with its own examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.ssh import wire
from conchrec.ssh.wire import ExtraBytes, Malformed, Reader, Truncated


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00000000"),
        (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
        (0x80, "000000020080"),
        (-0x1234, "00000002edcc"),
        (-0xDEADBEEF, "00000005ff21524111"),
        (-0x80, "0000000180"),
    ],
)
def test_encodes_mpint_examples_of_rfc(value: int, encoded: str) -> None:
    assert wire.mpint(value).hex() == encoded
    r = Reader(bytes.fromhex(encoded))
    assert r.mpint() == value
    r.end()


@given(st.integers())
def test_round_trips_any_mpint(value: int) -> None:
    assert Reader(wire.mpint(value)).mpint() == value


@given(st.binary(), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_reads_values_in_order(data: bytes, small: int, large: int, flag: bool) -> None:
    r = Reader(wire.string(data) + wire.uint32(small) + wire.uint64(large) + bytes((flag,)) + b"rest")
    assert (r.string(), r.uint32(), r.uint64(), r.boolean()) == (data, small, large, flag)
    assert not r.at_end
    assert r.rest() == b"rest"
    assert r.at_end
    r.end()


@given(st.binary(min_size=1), st.data())
def test_rejects_any_truncation(data: bytes, draw: st.DataObject) -> None:
    whole = wire.string(data)
    with pytest.raises(Truncated):
        Reader(whole[: draw.draw(st.integers(0, len(whole) - 1))]).string()


def test_reports_extra_bytes() -> None:
    r = Reader(b"\x01\x02")
    r.byte()
    with pytest.raises(ExtraBytes, match="1 extra bytes"):
        r.end()


def test_reads_any_nonzero_byte_as_true() -> None:
    assert [Reader(bytes((n,))).boolean() for n in (0, 1, 2, 255)] == [False, True, True, True]


def test_round_trips_name_lists() -> None:
    assert Reader(wire.names(())).names() == ()
    assert Reader(wire.names((b"a", b"b"))).names() == (b"a", b"b")


def test_rejects_text_that_is_not_utf8() -> None:
    assert Reader(wire.string("ö".encode())).text() == "ö"
    with pytest.raises(Malformed):
        Reader(wire.string(b"\xff")).text()
