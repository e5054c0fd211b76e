"""A sequence of messages as bytes: ``uint32 length, message`` for each. Two of them joined are one."""

from __future__ import annotations

from collections.abc import Iterable

from conchrec.ssh.wire import string


def pack(messages: Iterable[bytes]) -> bytes:
    """Encode a sequence of messages as one input."""
    return b"".join(map(string, messages))


def unpack(data: bytes) -> list[bytes]:
    """The messages; a length that reaches too far takes what there is, so that any bytes are a sequence."""
    messages, at = [], 0
    while at < len(data):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "big")
        messages.append(data[begin:at])
    return messages
