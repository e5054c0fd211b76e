"""Encodes audit events as JSON lines.

A line is one JSON object: ``time``, ``event``, ``code``, who and where, then the fields of the event. Fields
that are empty or unknown are left out. The code of a Reason follows it, as ``FIELD_code``.

Much of an event was chosen by somebody else: names, commands, error texts of a target. Two rules hold for
every string of every event:

- Characters that are not printable are written as JSON escapes (``text.escape_json``), so that ``tail -f`` is
  safe.
- A string has a limit, counted in bytes as written (an escape counts with all its bytes), and no string is
  written with more than twice its own bytes. A longer one is cut to the part that fits, and two more members
  describe the original: ``FIELD_size`` (bytes of UTF-8) and ``FIELD_sha256``. A list that is too long keeps
  its first items, and has ``FIELD_count`` and ``FIELD_sha256`` (over all items, joined with newlines).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from datetime import datetime, timezone

import orjson

from conchrec.audit.events import AuditEvent
from conchrec.reasons import Reason
from conchrec.text import escape_json

DEFAULT_LIMIT = 1024
"""Bytes of a string, as written."""
LIMITS = {"command": 8192, "forced_upon": 8192, "path": 4096, "other": 4096}
"""The limits of fields that are evidence of an act; 4096 is PATH_MAX of Linux."""
CUT_MINIMUM = 512
"""A text that is mostly escapes is cut to twice its own size, but not to less than so many bytes: a flood of
control characters must not become a larger flood on our disk."""
LIST_LIMIT = 4096
"""Bytes of all items of a list, as written."""
LIST_ITEMS = 64
LONGEST = 64 * 1024
"""No line has more bytes: the largest event with each field at its limit is far below (a test checks it)."""

_ALWAYS = frozenset({"user", "login", "target", "addr", "cid"})
#: A string of so many letters exceeds no limit: an escape has at most 12 bytes.
_SHORT = CUT_MINIMUM // 12
#: Neither does one of so many printable ASCII characters: only quotes and backslashes are escaped, with two
#: bytes.
_PLAIN = CUT_MINIMUM // 2

#: The part of an escape that a cut may leave, and the first half of a surrogate pair.
_HALF_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-f]{0,3})?)$")
_HALF_PAIR = re.compile(r"(?<!\\)(?:\\\\)*(\\ud[89ab][0-9a-f]{2})$")

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_names: dict[type[AuditEvent], tuple[str, ...]] = {}


def encode(event: AuditEvent, when: datetime) -> bytes:
    """Return the event as a JSON object on one line, without the closing brace and the newline: the chain
    adds its members there."""
    values: dict[str, object] = {"time": timestamp(when), "event": event.event, "code": event.code}
    kind = type(event)
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = tuple(item.name for item in fields(kind))
    for name in names:
        value = getattr(event, name)
        if name in _ALWAYS or (value is not None and value != "" and value != ()):
            if isinstance(value, str) and len(value) > _SHORT:
                _limit_text(name, value, values)
            elif type(value) is tuple:
                _limit_list(name, value, values)
            else:
                values[name] = value
            if isinstance(value, Reason):
                values[f"{name}_code"] = value.code.value
    try:
        # Much faster than json, with the same result; but it accepts no lone surrogates.
        line = escape_json(orjson.dumps(values).decode("utf-8"))
    except TypeError:
        line = _escaped(values)
    return line[:-1].encode("utf-8")


def timestamp(when: datetime) -> str:
    """Return the time in RFC 3339, in UTC, with milliseconds."""
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _limit_text(name: str, value: str, values: dict[str, object]) -> None:
    if len(value) <= _PLAIN and _is_plain(value):
        values[name] = value
        return
    limit = LIMITS.get(name, DEFAULT_LIMIT)
    sent = len(value[:limit].encode("utf-8", "surrogatepass"))
    kept = _prefix(value, min(limit, max(CUT_MINIMUM, 2 * sent)))
    values[name] = kept
    if kept != value:
        original = _bytes(value)
        values[f"{name}_size"] = len(original)
        values[f"{name}_sha256"] = hashlib.sha256(original).hexdigest()


def _limit_list(name: str, items: tuple[str, ...], values: dict[str, object]) -> None:
    if len(items) <= LIST_ITEMS and len(text := "".join(items)) <= _PLAIN and _is_plain(text):
        values[name] = list(items)
        return
    kept: list[str] = []
    room = LIST_LIMIT
    for item in items[:LIST_ITEMS]:
        text = _prefix(item, room)
        if text != item and kept:
            break
        kept.append(text)
        room -= len(_escaped(text).encode("utf-8"))
        if text != item:
            break
    values[name] = kept
    if tuple(kept) != items:
        values[f"{name}_count"] = len(items)
        values[f"{name}_sha256"] = hashlib.sha256(_bytes("\n".join(items))).hexdigest()


def _prefix(value: str, limit: int) -> str:
    """Return as much of ``value`` as has at most ``limit`` bytes when written. The cost does not depend on
    the rest."""
    if limit <= 0:
        return ""
    # Each character is written with at least one byte.
    written = _escaped(value[:limit])[1:-1].encode("utf-8")
    if len(written) <= limit:
        return value[:limit]
    text = written[:limit].decode("utf-8", "ignore")
    for half in (_HALF_ESCAPE, _HALF_PAIR):
        if (match := half.search(text)) is not None:
            text = text[: match.start(1)]
    kept = json.loads(f'"{text}"')
    assert isinstance(kept, str)
    return kept


def _is_plain(text: str) -> bool:
    """Whether each character is written with at most two bytes."""
    return text.isascii() and text.isprintable()


def _bytes(text: str) -> bytes:
    """Return UTF-8. Bytes that were not UTF-8, and were decoded as surrogates, stay as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _escaped(value: object) -> str:
    return escape_json(_json(value))
