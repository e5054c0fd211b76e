"""What a user reads of the messages that come from the proxy, as lines with a mark."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.channels import wire as w

DISCONNECT, BANNER, INFO_REQUEST = 1, 53, 60
Heard = tuple[str, str]


def heard(leg: str, number: int, payload: bytes) -> Iterator[Heard]:
    """Pairs of a mark and a text, of one message on the outer or the inner connection."""
    cursor = w.Cursor(payload)
    if number == DISCONNECT:
        cursor.u32()
        yield "disconnect", _text(cursor)
    elif number == BANNER:
        yield "banner", _text(cursor)
    elif number == INFO_REQUEST and payload[:4] != w.u32(11):
        yield from _questions(cursor)
    elif number == w.OPEN_FAILURE:
        cursor.u32()
        code = cursor.u32()
        yield f"open failed: {code}", _text(cursor)
    elif number == w.EXTENDED:
        cursor.u32()
        cursor.u32()
        yield "stderr", _text(cursor)
    elif number == w.DATA and leg == "outer":
        cursor.u32()
        yield "stdout", _text(cursor)
    elif number == w.REQUEST:
        cursor.u32()
        request = w.Request.parse(cursor.left)
        if request.name == b"exit-status":
            yield "exit", str(int.from_bytes(request.extra, "big"))


def _questions(cursor: w.Cursor) -> Iterator[Heard]:
    """``string name, string instruction, string language, int count, (string prompt, boolean echo)…``"""
    for mark in ("title", "instruction"):
        if text := _text(cursor):
            yield mark, text
    cursor.text()
    for _ in range(cursor.u32()):
        text = _text(cursor)
        yield "prompt", text + ("" if cursor.flag() else " (no echo)")


def _text(cursor: w.Cursor) -> str:
    return cursor.text().decode("utf-8", "backslashreplace")
