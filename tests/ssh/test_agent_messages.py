"""The layouts and the framing of agent messages, against literal bytes and in round trips."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.ssh import agent_messages as a
from conchrec.ssh.wire import ExtraBytes, Reader, Truncated, uint32
from conchrec.text import one_line

UINT32 = st.integers(min_value=0, max_value=2**32 - 1)
KEY = st.binary(min_size=32, max_size=32)


def messages_in(frames: a.AgentFrames) -> list[bytes]:
    """Return all complete messages."""
    received = []
    while (message := frames.next_message()) is not None:
        received.append(message)
    return received


# --- framing


@given(
    messages=st.lists(st.binary(min_size=1, max_size=100), max_size=5),
    cuts=st.lists(st.integers(min_value=1, max_value=40)),
)
def test_frames_round_trip_when_cut_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(a.frame, messages))
    frames = a.AgentFrames()
    received = []
    for size in [*cuts, len(stream)]:
        frames.feed(stream[:size])
        stream = stream[size:]
        received += messages_in(frames)
    assert received == messages
    assert frames.next_length() is None


def test_delivers_message_with_its_last_byte() -> None:
    """One byte at a time; the length is known after the fourth."""
    frames = a.AgentFrames()
    seen = []
    for byte in a.frame(b"\x0babc"):
        frames.feed(bytes((byte,)))
        seen.append((frames.next_length(), frames.next_message()))
    assert seen == [(None, None)] * 3 + [(4, None)] * 4 + [(4, b"\x0babc")]


def test_accepts_longest_message() -> None:
    frames = a.AgentFrames()
    longest = bytes(a.MAX_MESSAGE)
    frames.feed(a.frame(longest) + a.frame(b"\x05"))
    assert messages_in(frames) == [longest, b"\x05"]


@pytest.mark.parametrize("length", [0, a.MAX_MESSAGE + 1, 2**32 - 1])
def test_rejects_invalid_length_after_valid_messages(length: int) -> None:
    frames = a.AgentFrames()
    frames.feed(a.frame(b"\x06") + uint32(length))
    assert frames.next_message() == b"\x06"
    for step in (frames.next_length, frames.next_message):
        with pytest.raises(a.InvalidLength, match=f" {length} bytes") as caught:
            step()
        assert caught.value.length == length


def test_clear_discards_incomplete_message() -> None:
    frames = a.AgentFrames()
    frames.feed(uint32(10) + b"x")
    frames.clear()
    frames.feed(a.frame(b"\x06"))
    assert messages_in(frames) == [b"\x06"]


@given(st.binary(min_size=1, max_size=100), st.binary(max_size=10))
def test_reads_one_message_from_blocking_stream(message: bytes, rest: bytes) -> None:
    stream = io.BytesIO(a.frame(message) + rest)
    assert a.read_message(stream.read) == message
    assert stream.read() == rest


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", b""),
        (b"\0\0", b""),
        (uint32(0), b""),
        (uint32(0) + b"x", b""),
        (uint32(5) + b"\x0e\0", b"\x0e\0"),
    ],
)
def test_returns_unparsable_message_when_stream_ends(stream: bytes, message: bytes) -> None:
    received = a.read_message(io.BytesIO(stream).read)
    assert received == message
    with pytest.raises(RemoteViolation):
        a.parse_signature(received)


@pytest.mark.parametrize("length", [a.MAX_MESSAGE + 1, 2**32 - 1])
def test_rejects_too_long_message_from_blocking_stream(length: int) -> None:
    stream = io.BytesIO(uint32(length) + bytes(10))
    with pytest.raises(a.InvalidLength):
        a.read_message(stream.read)
    assert stream.tell() == 4


# --- layouts


def test_encodes_documented_layouts() -> None:
    assert a.encode_message(a.REQUEST_IDENTITIES) == b"\x0b"
    assert a.identities_answer([(b"K", b"c"), (b"", b"")]) == (
        b"\x0c\0\0\0\2\0\0\0\1K\0\0\0\1c\0\0\0\0\0\0\0\0"
    )
    assert a.SignRequest(blob=b"K", data=b"dd", flags=a.FLAG_RSA_SHA2_512).encode() == (
        b"\x0d\0\0\0\1K\0\0\0\2dd\0\0\0\4"
    )
    assert a.sign_response(b"s") == b"\x0e\0\0\0\1s"
    assert a.remove_identity(b"K") == b"\x12\0\0\0\1K"
    assert a.ExtensionRequest(name=b"x@y", contents=b"z").encode() == b"\x1b\0\0\0\3x@yz"
    assert a.extension_response(b"x@y", b"z") == b"\x1d\0\0\0\3x@yz"
    assert a.SessionBinding(host_key=b"H", session_id=b"I", signature=b"S").contents(forwarding=True) == (
        b"\0\0\0\1H\0\0\0\1I\0\0\0\1S\1"
    )


def test_encodes_layout_of_added_certificate() -> None:
    public, private = b"p" * 32, b"s" * 32
    added = a.AddCertificate(certificate=b"C", public=public, private=private, comment=b"c", lifetime=258)
    assert added.encode() == (
        b"\x19"
        b"\0\0\0\x20ssh-ed25519-cert-v01@openssh.com"
        b"\0\0\0\1C" + b"\0\0\0\x20" + public + b"\0\0\0\x40" + private + public + b"\0\0\0\1c"
        b"\1"
        b"\0\0\1\2"
    )
    assert "ssss" not in repr(added)


# --- round trips


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=5))
def test_identities_round_trip(keys: list[tuple[bytes, bytes]]) -> None:
    assert a.parse_identities(a.identities_answer(keys)) == tuple(
        a.AgentIdentity(blob=blob, comment=one_line(comment, a.MAX_COMMENT)) for blob, comment in keys
    )


@given(st.binary(max_size=40), st.binary(max_size=40), UINT32)
def test_sign_request_round_trip(blob: bytes, data: bytes, flags: int) -> None:
    request = a.SignRequest(blob=blob, data=data, flags=flags)
    assert a.SignRequest.parse(request.encode()) == request


@given(st.binary(max_size=100))
def test_signature_round_trip(signature: bytes) -> None:
    assert a.parse_signature(a.sign_response(signature)) == signature


@given(st.binary(max_size=40), KEY, KEY, st.binary(max_size=40), UINT32)
def test_encodes_added_certificate_with_any_fields(
    certificate: bytes, public: bytes, private: bytes, comment: bytes, lifetime: int
) -> None:
    added = a.AddCertificate(
        certificate=certificate, public=public, private=private, comment=comment, lifetime=lifetime
    )
    r = Reader(added.encode())
    assert r.byte() == a.ADD_ID_CONSTRAINED
    fields = [r.string() for _ in range(5)]
    assert fields == [b"ssh-ed25519-cert-v01@openssh.com", certificate, public, private + public, comment]
    assert (r.byte(), r.uint32()) == (a.CONSTRAIN_LIFETIME, lifetime)
    r.end()


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_extension_round_trip(name: bytes, contents: bytes) -> None:
    request = a.ExtensionRequest(name=name, contents=contents)
    assert a.ExtensionRequest.parse(request.encode()) == request
    assert a.parse_extension_reply(a.extension_response(name, contents), name) == contents
    assert a.parse_extension_reply(a.encode_message(a.SUCCESS, contents), name) == contents


# --- rejected messages


WHOLE: list[tuple[Callable[[bytes], Any], bytes]] = [
    (a.parse_identities, a.identities_answer([(b"K", b"c"), (b"L", b"")])),
    (a.parse_signature, a.sign_response(b"s")),
    (a.SignRequest.parse, a.SignRequest(blob=b"K", data=b"d", flags=0).encode()),
]
IDS = ["identities", "signature", "sign request"]


@pytest.mark.parametrize(("parse", "message"), WHOLE, ids=IDS)
def test_rejects_truncated_and_extended_messages(parse: Callable[[bytes], Any], message: bytes) -> None:
    parse(message)
    for length in range(1, len(message)):
        with pytest.raises(Truncated):
            parse(message[:length])
    with pytest.raises(ExtraBytes):
        parse(message + b"x")


@pytest.mark.parametrize(("parse", "message"), WHOLE, ids=IDS)
@pytest.mark.parametrize(
    ("number", "is_refusal"), [(5, True), (28, True), (102, True), (6, False), (0, False)]
)
def test_rejects_message_with_another_number(
    parse: Callable[[bytes], Any], message: bytes, number: int, is_refusal: bool
) -> None:
    with pytest.raises(a.UnexpectedMessage, match=f"message {number}") as caught:
        parse(bytes((number,)) + message[1:])
    assert (caught.value.number, caught.value.is_refusal) == (number, is_refusal)


@pytest.mark.parametrize(
    "parse",
    [*(parse for parse, _ in WHOLE), a.parse_done, lambda message: a.parse_extension_reply(message, b"")],
)
def test_rejects_empty_message(parse: Callable[[bytes], Any]) -> None:
    with pytest.raises(a.UnexpectedMessage) as caught:
        parse(b"")
    assert caught.value.number is None
    assert not caught.value.is_refusal


def test_rejects_too_many_identities() -> None:
    most = [(b"", b"")] * a.MAX_IDENTITIES
    assert len(a.parse_identities(a.identities_answer(most))) == a.MAX_IDENTITIES
    with pytest.raises(RemoteViolation, match="lists 2049 keys"):
        a.parse_identities(a.identities_answer([*most, (b"", b"")]))
    with pytest.raises(RemoteViolation, match="lists 4294967295 keys"):
        a.parse_identities(a.encode_message(a.IDENTITIES_ANSWER, uint32(2**32 - 1)))


def test_makes_comments_safe_to_print() -> None:
    (identity,) = a.parse_identities(a.identities_answer([(b"", b"a\r\n\x1b]0;\xff" + b"y" * 100_000)]))
    assert identity.comment.startswith("a  \\x1b]0;\\xffyy")
    assert identity.comment.endswith("yy…")
    assert len(identity.comment) == a.MAX_COMMENT


@pytest.mark.parametrize("number", sorted(a.REFUSALS))
def test_recognizes_refusals_with_any_contents(number: int) -> None:
    for contents in (b"", b"why"):
        refusal = a.encode_message(number, contents)
        assert a.parse_done(refusal) is False
        assert a.parse_extension_reply(refusal, b"x@y") is None


def test_accepts_success_only_without_contents() -> None:
    assert a.parse_done(a.encode_message(a.SUCCESS)) is True
    for message in (a.encode_message(a.SUCCESS, b"x"), a.identities_answer([])):
        with pytest.raises(a.UnexpectedMessage):
            a.parse_done(message)


def test_rejects_reply_to_another_extension() -> None:
    with pytest.raises(RemoteViolation, match="another extension"):
        a.parse_extension_reply(a.extension_response(b"z@y", b""), b"x@y")
    with pytest.raises(Truncated):
        a.parse_extension_reply(a.encode_message(a.EXTENSION_RESPONSE, b"\0\0\0"), b"x@y")
