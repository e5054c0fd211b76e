"""The ledger: one signed line for each recording that was opened, sealed or removed, in order.

``ledger.jsonl`` in the directory of the recordings. Each line has a number and the digest of the line
before it, so a line that is missing shows, and so does a recording that is: it was opened here. The
*head* (``NUMBER:SHA256`` of the last line) is all that has to be known elsewhere to notice that the
whole directory was put back to an earlier day.

Several processes may write: each append holds a lock on the file for as long as it takes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from conchrec.errors import RecordingError
from conchrec.recording.seal import Signer

NAME = "ledger.jsonl"
LONGEST = 64 * 1024
"""Bytes of a line; ours are far below."""
_START = "0" * 64


class Act(Enum):
    """What a line tells of a recording."""

    OPEN = "open"
    """It began."""
    SEALED = "sealed"
    """Its manifest, whose digest is in ``manifest``, was put in its place."""
    HELD = "held"
    """It must not be removed (a legal hold), until:"""
    RELEASED = "released"
    REMOVED = "removed"
    """It was removed, for a ``reason``: a tombstone."""


class BrokenLedger(RecordingError):
    """The ledger can not be gone on with: a line of it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the ledger. ``manifest`` is the SHA-256 of the manifest's file, hexadecimal."""

    number: int
    previous: str
    time: str
    act: Act
    sid: str
    manifest: str = ""
    reason: str = ""
    by: str = ""

    def encode(self) -> bytes:
        """A JSON object in ASCII, without spaces or a newline; what it does not have is left out."""
        fields: dict[str, object] = {
            "number": self.number,
            "previous": self.previous,
            "time": self.time,
            "act": self.act.value,
            "sid": self.sid,
        }
        fields |= {
            name: value for name in ("manifest", "reason", "by") if (value := getattr(self, name)) != ""
        }
        return json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f").encode("ascii")

    @classmethod
    def parse(cls, line: bytes) -> Line:
        """Raises BrokenLedger where it is none; signatures are for ``seal.Keys`` to check."""
        try:
            fields = json.loads(line)
            number = fields["number"]
            if not line.endswith(b"\n") or type(number) is not int:
                raise ValueError(line)
            return cls(
                number=number,
                act=Act(fields["act"]),
                **{name: _text(fields[name]) for name in ("previous", "time", "sid")},
                **{name: _text(fields.get(name, "")) for name in ("manifest", "reason", "by")},
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BrokenLedger("the ledger has a line that can not be read", repr(error)) from error


def head_of(number: int, line: bytes) -> str:
    """The name of everything up to this line."""
    return f"{number}:{hashlib.sha256(line).hexdigest()}"


class Ledger:
    """The ledger of one directory, to write to. Raises OSError or BrokenLedger wherever it can't be."""

    def __init__(self, directory: Path, signer: Signer, now: Callable[[], datetime]) -> None:
        self.path = directory / NAME
        self._signer = signer
        self._now = now
        self._descriptor: int | None = None
        self._size = -1
        self._number = 0
        self._digest = _START
        # The lock on the file keeps other processes out, and not our own threads.
        self._writing = threading.Lock()

    @property
    def head(self) -> str:
        """As this process knows it: after its own last line."""
        return f"{self._number}:{self._digest}"

    def append(self, act: Act, sid: str, *, manifest: str = "", reason: str = "", by: str = "") -> str:
        """Write a line; the new head. It is with the operating system afterwards."""
        with self._writing, self._locked() as descriptor:
            self._catch_up(descriptor)
            moment = self._now().astimezone(timezone.utc).isoformat(timespec="milliseconds")
            line = self._signer.entry(
                Line(
                    number=self._number + 1,
                    previous=self._digest,
                    time=moment.replace("+00:00", "Z"),
                    act=act,
                    sid=sid,
                    manifest=manifest,
                    reason=reason,
                    by=by,
                ).encode()
            )
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(line)
            self._number += 1
            self._digest = hashlib.sha256(line).hexdigest()
            return self.head

    def sync(self) -> None:
        """What was appended is on the disk afterwards. Blocks."""
        descriptor = self._descriptor
        if descriptor is not None:
            os.fdatasync(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        while True:
            if self._descriptor is None:
                self._descriptor = os.open(
                    self.path,
                    os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o600,
                )
                self._size = -1
            descriptor = self._descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if _is(descriptor, self.path):
                    yield descriptor
                    return
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            # Somebody has put another file in its place.
            os.close(descriptor)
            self._descriptor = None

    def _catch_up(self, descriptor: int) -> None:
        """Another process may have written, or have died while it did."""
        size = os.fstat(descriptor).st_size
        if size == self._size:
            return
        tail = os.pread(descriptor, 2 * LONGEST, max(0, size - 2 * LONGEST))
        if torn := len(tail) - (tail.rfind(b"\n") + 1):
            # Whoever began that line never said that it was there.
            size -= torn
            os.ftruncate(descriptor, size)
            tail = tail[:-torn]
        if tail:
            last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
            number, digest = Line.parse(last).number, hashlib.sha256(last).hexdigest()
        elif size:
            raise BrokenLedger("the ledger has a line that can not be read")
        else:
            number, digest = 0, _START
        self._size, self._number, self._digest = size, number, digest


def lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a ledger, as they are, oldest first. Raises OSError; none where there is no file."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        while line := file.readline(LONGEST):
            if not line.endswith(b"\n") and len(line) < LONGEST:
                return  # it is being written, or was when its process died
            yield line


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
