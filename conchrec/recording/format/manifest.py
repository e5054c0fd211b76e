"""The manifest: what is known of one recording, in the JSON file next to it.

A value; the store writes it. A field without a value is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum

from conchrec import __version__
from conchrec.errors import RecordingError
from conchrec.provenance import NOTHING_KNOWN, Provenance
from conchrec.reasons import ReasonCode
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.json_fields import as_mapping, as_number, as_text, indented
from conchrec.recording.format.transfer_account import Files

VERSION = 1


class Status(Enum):
    """How a recording ended."""

    COMPLETE = "complete"
    """The session ended, and all of it is recorded."""
    FAILED = "failed"
    """The recording failed during the session: the disk was full, or could not be written."""
    INTERRUPTED = "interrupted"
    """conchrec stopped during the session; the recording was completed at the next start."""
    DAMAGED = "damaged"
    """The file has unreadable lines in its middle, or does not match its checkpoints; it is left
    unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTotals:
    """The size of one stream. ``sha256`` (hexadecimal) is there where its bytes were hashed."""

    size: int
    sha256: str = ""

    def fields(self) -> dict[str, object]:
        """Return the fields of the manifest."""
        return {"bytes": self.size} | ({"sha256": self.sha256} if self.sha256 else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The SSH messages other than data that were forwarded in one direction: their number, their bytes, and a
    SHA-256 (hexadecimal) over the number (1 byte), the length (uint32) and the body of each. The body is what
    follows the channel number."""

    messages: int
    size: int
    sha256: str

    def fields(self) -> dict[str, object]:
        """Return the fields of the manifest."""
        return {"messages": self.messages, "bytes": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pty:
    """The terminal that the user requested."""

    term: str
    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellCommand:
    """A command of a shell session, as far as it was recognised: seconds since the beginning, and its exit
    status where the shell reports it."""

    time: float
    text: str
    status: int | None = None

    def fields(self) -> dict[str, object]:
        """Return the fields of the manifest."""
        status: dict[str, object] = {} if self.status is None else {"exit": self.status}
        return {"time": self.time, "text": self.text} | status


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file that is not the plain cast: its name, its size and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that is known of a recording when it is complete.

    ``cast_size``, ``cast_sha256`` and ``cast_lines`` are of the plain cast. ``stored`` is the file that
    exists instead, where the recording was compressed or encrypted, and ``encrypted`` are its recipients.
    ``late`` is the number of bytes at the end of an interrupted recording that no checkpoint covers: they
    were signed at the recovery. ``stdout``, ``stderr`` and ``stdin`` are None where they are not known (an
    interrupted recording). ``files`` is there where files were transferred, and ``coverage`` says what is not
    recorded. ``made_by`` is the program that wrote this.
    """

    sid: str
    status: Status
    reason: str
    started: datetime
    ended: datetime
    cast_size: int
    cast_sha256: str
    cast_lines: int = 0
    late: int = 0
    stored: Stored | None = None
    encrypted: tuple[str, ...] = ()
    made_by: str = f"conchrec {__version__}"
    cid: str = ""
    user: str = ""
    login: str = ""
    target: str = ""
    address: str = ""
    roles: tuple[str, ...] = ()
    provenance: Provenance = NOTHING_KNOWN
    kind: str = ""
    command: str = ""
    command_sha256: str = ""
    control_user: Control | None = None
    control_target: Control | None = None
    pty: Pty | None = None
    input: str = ""
    exit_status: int | None = None
    exit_signal: str = ""
    stdout: StreamTotals | None = None
    stderr: StreamTotals | None = None
    stdin: StreamTotals | None = None
    files: Files | None = None
    coverage: tuple[NotKept, ...] = ()
    commands: tuple[ShellCommand, ...] = ()
    commands_left_out: int = 0

    @property
    def duration(self) -> float:
        """The duration in seconds, never negative."""
        return max((self.ended - self.started).total_seconds(), 0.0)

    def encode(self) -> bytes:
        """Return the contents of the file: indented JSON that ends with a newline."""
        fields: dict[str, object] = {
            "version": VERSION,
            "sid": self.sid,
            "status": self.status.value,
            "reason": self.reason,
            "started": _format_time(self.started),
            "ended": _format_time(self.ended),
            "duration": round(self.duration, 6),
        }
        texts = ("cid", "user", "login", "target", "address", "kind", "command", "command_sha256", "input")
        for name in texts:
            if value := getattr(self, name):
                fields[name] = value
        if self.roles:
            fields["roles"] = list(self.roles)
        if provenance := self.provenance.fields():
            fields["provenance"] = provenance
        if self.pty is not None:
            fields["pty"] = {"term": self.pty.term, "columns": self.pty.columns, "rows": self.pty.rows}
        if self.exit_status is not None:
            fields["exit"] = {"status": self.exit_status}
        elif self.exit_signal:
            fields["exit"] = {"signal": self.exit_signal}
        for name, stream in (("stdout", self.stdout), ("stderr", self.stderr), ("stdin", self.stdin)):
            if stream is not None:
                fields[name] = stream.fields()
        control = {"user": self.control_user, "target": self.control_target}
        if any(control.values()):
            fields["control"] = {name: value.fields() for name, value in control.items() if value is not None}
        if self.files is not None:
            fields["files"] = self.files.fields()
        fields["coverage"] = {"not_kept": [word.value for word in self.coverage]}
        if self.commands:
            fields["commands"] = [command.fields() for command in self.commands]
        if self.commands_left_out:
            fields["commands_left_out"] = self.commands_left_out
        fields["cast"] = {
            "name": f"{self.sid}.cast",
            "size": self.cast_size,
            "sha256": self.cast_sha256,
            "lines": self.cast_lines,
        }
        if self.late:
            fields["sealed_at_recovery"] = {"bytes": self.late}
        if self.stored is not None:
            fields["stored"] = asdict(self.stored)
        if self.encrypted:
            fields["encrypted"] = {"to": list(self.encrypted)}
        fields["made_by"] = self.made_by
        # Escaped to ASCII, because people read this file with `cat`, and some of it comes from outside.
        return indented(fields).replace("\x7f", "\\u007f").encode("ascii") + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read a manifest. Raises RecordingError for a malformed one."""
        try:
            # Not with orjson: a command that was not UTF-8 is kept as an escaped lone surrogate.
            return _parse(as_mapping(json.loads(text)))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RecordingError(
                "the manifest is malformed", repr(error), code=ReasonCode.MANIFEST_UNREADABLE
            ) from error


def _parse(fields: Mapping[str, object]) -> Manifest:
    if fields["version"] != VERSION:
        raise ValueError(f"version {fields['version']!r}")
    cast = as_mapping(fields["cast"])
    end = as_mapping(fields.get("exit", {}))
    pty = as_mapping(fields.get("pty", {}))
    stored = as_mapping(fields.get("stored", {}))
    status = end.get("status")
    return Manifest(
        sid=as_text(fields["sid"]),
        status=Status(fields["status"]),
        reason=as_text(fields["reason"]),
        started=_parse_time(fields["started"]),
        ended=_parse_time(fields["ended"]),
        cast_size=as_number(cast["size"]),
        cast_sha256=as_text(cast["sha256"]),
        cast_lines=as_number(cast.get("lines", 0)),
        late=as_number(as_mapping(fields.get("sealed_at_recovery", {})).get("bytes", 0)),
        stored=Stored(
            name=as_text(stored["name"]), size=as_number(stored["size"]), sha256=as_text(stored["sha256"])
        )
        if stored
        else None,
        encrypted=_texts(as_mapping(fields.get("encrypted", {})).get("to", [])),
        made_by=as_text(fields.get("made_by", "")),
        cid=as_text(fields.get("cid", "")),
        user=as_text(fields.get("user", "")),
        login=as_text(fields.get("login", "")),
        target=as_text(fields.get("target", "")),
        address=as_text(fields.get("address", "")),
        provenance=Provenance.parse(fields.get("provenance")),
        roles=_texts(fields.get("roles", [])),
        kind=as_text(fields.get("kind", "")),
        command=as_text(fields.get("command", "")),
        command_sha256=as_text(fields.get("command_sha256", "")),
        control_user=_control(as_mapping(fields.get("control", {})).get("user")),
        control_target=_control(as_mapping(fields.get("control", {})).get("target")),
        pty=Pty(term=as_text(pty["term"]), columns=as_number(pty["columns"]), rows=as_number(pty["rows"]))
        if pty
        else None,
        input=as_text(fields.get("input", "")),
        exit_status=None if status is None else as_number(status),
        exit_signal=as_text(end.get("signal", "")),
        stdout=_stream(fields.get("stdout")),
        stderr=_stream(fields.get("stderr")),
        stdin=_stream(fields.get("stdin")),
        coverage=tuple(map(NotKept, _texts(as_mapping(fields.get("coverage", {})).get("not_kept", [])))),
        commands=_commands(fields.get("commands", [])),
        commands_left_out=as_number(fields.get("commands_left_out", 0)),
        files=Files.parse(as_mapping(fields["files"])) if "files" in fields else None,
    )


def _format_time(when: datetime) -> str:
    return when.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse_time(value: object) -> datetime:
    when = datetime.fromisoformat(as_text(value).replace("Z", "+00:00"))
    if when.tzinfo is None:
        raise ValueError("a time without a zone")
    return when.astimezone(timezone.utc)


def _commands(value: object) -> tuple[ShellCommand, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    commands = []
    for item in map(as_mapping, value):
        time, status = item["time"], item.get("exit")
        if not isinstance(time, (int, float)):
            raise TypeError("not a number")
        number = None if status is None else as_number(status)
        commands.append(ShellCommand(time=time, text=as_text(item["text"]), status=number))
    return tuple(commands)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(as_text(item) for item in value)


def _stream(value: object) -> StreamTotals | None:
    if value is None:
        return None
    fields = as_mapping(value)
    return StreamTotals(size=as_number(fields["bytes"]), sha256=as_text(fields.get("sha256", "")))


def _control(value: object) -> Control | None:
    if value is None:
        return None
    fields = as_mapping(value)
    return Control(
        messages=as_number(fields["messages"]),
        size=as_number(fields["bytes"]),
        sha256=as_text(fields["sha256"]),
    )
