"""What is known of the files that a session moved: values, and how the manifest holds them.

Made by the readers of the protocols (``sftp``, ``scp``), gathered by ``transfers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from conchrec.recording.format.json_fields import as_number, as_text
from conchrec.text import decode_text

#: The longest path that is kept, in bytes; Unix takes none that is longer.
PATH_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that was done to the files of the target, or was tried.

    ``operation`` is ``read`` or ``write`` for a file that was sent to the user, or to the target; else what
    was changed: ``remove``, ``rename``, ``setstat`` … ``path`` is the client's own word for it; ``other`` is
    the second path (where something was moved to, what a link points to); ``name`` is what scp's sender
    calls the file, below what was asked for. ``size`` are the bytes of a file that passed, None for a change.
    ``sha256`` (hexadecimal) is there where the file passed whole and in order, else ``unhashed`` says why
    not. ``result`` is ``ok``, or how it failed; ``duration`` is in seconds.
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
        """As the manifest has it: what is empty is left out, but for the path and the result."""
        found: dict[str, object] = {"operation": self.operation, "path": self.path}
        for name in ("other", "name", "detail"):
            if value := getattr(self, name):
                found[name] = value
        if self.size is not None:
            found["bytes"] = self.size
        if self.sha256:
            found["sha256"] = self.sha256
        elif self.unhashed:
            found["unhashed"] = self.unhashed
        return found | {"result": self.result, "seconds": round(self.duration, 3)}

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Operation:
        """The same from the manifest. KeyError, TypeError and ValueError where it is something else."""
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
    """The protocol could not be followed any further: what came after is not accounted for.

    ``from_user`` and ``from_target`` are the bytes that came already and belong to no part of the protocol
    that was read: the recording keeps them, as it keeps what follows.
    """

    reason: str
    from_user: bytes = field(default=b"", compare=False, repr=False)
    from_target: bytes = field(default=b"", compare=False, repr=False)


Found = Operation | AccountLost


class NotFollowed(Exception):
    """The bytes are not what the protocol allows at this point; the text says why."""


class ProtocolReader(Protocol):
    """Follows a protocol that flows by. Keeps little, and raises nothing."""

    def from_user(self, data: bytes) -> tuple[Found, ...]:
        """What these bytes to the target complete."""

    def from_target(self, data: bytes) -> tuple[Found, ...]:
        """The same of bytes from the target."""

    def end(self) -> tuple[Found, ...]:
        """No more bytes: what was not completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """All of a session. ``by`` is sftp, scp, rsync or git's command.

    ``sent`` went to the target and ``received`` came from it, in bytes of the protocol. ``read`` and
    ``written`` count files and ``read_bytes`` and ``written_bytes`` what they held; those that failed are
    among them, and counted in ``failed`` with the ``changes`` that did. ``lost`` says why the protocol
    could not be followed to its end. ``mixed``: the command may have run other programs besides, and what
    they did is not here. ``operations`` are the first of them, up to a bound.
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
        """How many operations there were beyond those that are listed."""
        return self.read + self.written + self.changes - len(self.operations)

    def fields(self) -> dict[str, object]:
        """As the manifest has it."""
        found: dict[str, object] = {"by": self.by} | {name: getattr(self, name) for name in _COUNTS}
        if self.mixed:
            found["mixed"] = True
        if self.lost:
            found["lost"] = self.lost
        if self.left_out:
            found["left_out"] = self.left_out
        return found | {"list": [operation.fields() for operation in self.operations]}

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Files:
        """The same from the manifest. KeyError, TypeError and ValueError where it is something else."""
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
    """A path as text: what is not UTF-8 as ``\\xff``, and no more than PATH_MAX bytes of it."""
    text = decode_text(path[:PATH_MAX])
    return f"{text}…" if len(path) > PATH_MAX else text
