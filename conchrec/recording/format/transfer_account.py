"""What is known of the files that a session transferred: values, and their form in the manifest.

The protocol readers (``capture.sftp``, ``capture.scp``) make them, and ``capture.file_transfers`` collects
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from conchrec.recording.format.json_fields import as_number, as_text
from conchrec.text import decode_text

#: The longest path that is kept, in bytes; it is the limit of Unix.
PATH_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation on files of the target, which succeeded or failed.

    ``operation`` is ``read`` or ``write`` for a file that was sent to the user or to the target; else what
    was changed: ``remove``, ``rename``, ``setstat`` … ``path`` is the path as the client wrote it, ``other``
    the second path (the new name, or what a link points to), and ``name`` is what the sender of scp calls the
    file. ``size`` is the number of bytes of a file that were transferred, None for a change. ``sha256``
    (hexadecimal) is there where the file was transferred completely and in order; else ``unhashed`` says why
    not. ``result`` is ``ok`` or the error; ``duration`` is in seconds.
    """

    operation: str
    path: str
    other: str = ""
    name: str = ""
    detail: str = ""
    size: int | None = None
    sha256: str = ""
    unhashed: str = ""
    result: str = "ok"
    duration: float = 0.0

    def fields(self) -> dict[str, object]:
        """Return the fields of the manifest. Empty ones are left out, except the path and the result."""
        fields: dict[str, object] = {"operation": self.operation, "path": self.path}
        for name in ("other", "name", "detail"):
            if value := getattr(self, name):
                fields[name] = value
        if self.size is not None:
            fields["bytes"] = self.size
        if self.sha256:
            fields["sha256"] = self.sha256
        elif self.unhashed:
            fields["unhashed"] = self.unhashed
        return fields | {"result": self.result, "seconds": round(self.duration, 3)}

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Operation:
        """Read the fields of the manifest. Raises KeyError, TypeError and ValueError for malformed ones."""
        size, seconds = fields.get("bytes"), fields["seconds"]
        if not (size is None or isinstance(size, int)) or not isinstance(seconds, (int, float)):
            raise TypeError("not a number")
        return cls(
            size=size,
            duration=float(seconds),
            **{name: as_text(fields.get(name, "")) for name in _TEXTS},
        )


_TEXTS = ("operation", "path", "other", "name", "detail", "sha256", "unhashed", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLost:
    """The protocol cannot be followed any further: later operations are not known.

    ``from_user`` and ``from_target`` are bytes that have arrived and were not understood: the recording keeps
    them, as it keeps what follows.
    """

    reason: str
    from_user: bytes = field(default=b"", compare=False, repr=False)
    from_target: bytes = field(default=b"", compare=False, repr=False)


TransferFact = Operation | AccountLost


class NotFollowed(Exception):
    """The bytes are not what the protocol allows at this point; the text says why."""


class ProtocolReader(Protocol):
    """Follows a protocol whose bytes pass by. Keeps little, and raises nothing."""

    def from_user(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes to the target. Returns what they complete."""

    def from_target(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes from the target. Returns what they complete."""

    def end(self) -> tuple[TransferFact, ...]:
        """No more bytes follow. Returns what was not completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The transfers of a session. ``by`` is sftp, scp, rsync or the command of git.

    ``sent`` went to the target and ``received`` came from it, in bytes of the protocol. ``read`` and
    ``written`` count files, and ``read_bytes`` and ``written_bytes`` their contents; failed ones are
    included, and counted in ``failed`` together with failed ``changes``. ``lost`` says why the protocol could
    not be followed to its end. ``mixed``: the command may have run other programs as well, whose work is not
    known. ``operations`` are the first ones, up to a limit.
    """

    by: str
    mixed: bool = False
    sent: int = 0
    received: int = 0
    read: int = 0
    read_bytes: int = 0
    written: int = 0
    written_bytes: int = 0
    changes: int = 0
    failed: int = 0
    lost: str = ""
    operations: tuple[Operation, ...] = ()

    @property
    def left_out(self) -> int:
        """The number of operations that are not listed."""
        return self.read + self.written + self.changes - len(self.operations)

    def fields(self) -> dict[str, object]:
        """Return the fields of the manifest."""
        fields: dict[str, object] = {"by": self.by} | {name: getattr(self, name) for name in _COUNTS}
        if self.mixed:
            fields["mixed"] = True
        if self.lost:
            fields["lost"] = self.lost
        if self.left_out:
            fields["left_out"] = self.left_out
        return fields | {"list": [operation.fields() for operation in self.operations]}

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Files:
        """Read the fields of the manifest. Raises KeyError, TypeError and ValueError for malformed ones."""
        listed = fields["list"]
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise TypeError("not a list of objects")
        return cls(
            by=as_text(fields["by"]),
            mixed=fields.get("mixed", False) is True,
            lost=as_text(fields.get("lost", "")),
            operations=tuple(map(Operation.parse, listed)),
            **{name: as_number(fields[name]) for name in _COUNTS},
        )


_COUNTS = ("sent", "received", "read", "read_bytes", "written", "written_bytes", "changes", "failed")


def path_text(path: bytes) -> str:
    """Return a path as text: bytes that are not UTF-8 as ``\\xff``, and at most PATH_MAX bytes."""
    text = decode_text(path[:PATH_MAX])
    return f"{text}…" if len(path) > PATH_MAX else text
