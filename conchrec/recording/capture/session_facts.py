"""The facts of a session, without its streams, that become the header and the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from conchrec.errors import RecordingError
from conchrec.model import SessionInfo
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.environment import Environment
from conchrec.recording.format.kept_text import KeptText
from conchrec.recording.format.manifest import Control, Manifest, Pty, Status
from conchrec.recording.format.transfer_account import Files
from conchrec.text import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFacts:
    """What runs: ``kind`` is shell, exec, subsystem or none, ``command`` the command line or the name of the
    subsystem, and ``command_sha256`` its digest where it was cut or is not UTF-8."""

    kind: str = ""
    command: str = ""
    command_sha256: str = ""

    def encode(self) -> str:
        """Return the JSON of the event of a later start."""
        return json.dumps(asdict(self))


class SessionSetup:
    """What the user requests before the start: a terminal and variables; and the markers of that time."""

    __slots__ = ("_variables", "environment", "markers", "pty", "size")

    def __init__(self) -> None:
        self.pty: Pty | None = None
        self.size = asciicast.DEFAULT_SIZE
        #: The variables whose values are in ``env`` of the header itself: TERM and SHELL.
        self._variables: dict[str, str] = {}
        self.environment = Environment()
        #: The markers that follow the header.
        self.markers: list[str] = []

    def request_pty(self, pty: Pty) -> None:
        """The user requests a terminal."""
        self.pty = pty
        self._variables["TERM"] = pty.term

    def set_variable(self, name: bytes, value: bytes) -> tuple[str, str]:
        """The user requests a variable. Returns the text of its marker, and that of the value that it
        replaces, which is empty without one."""
        label, kept, replaced = self.environment.set(name, value)
        if label == "SHELL" or (label == "TERM" and self.pty is None):
            self._variables[label] = kept.text
        return _format_variable(label, kept), "" if replaced is None else _format_variable(label, replaced)

    def take_markers(self) -> list[str]:
        """Return the markers, once."""
        markers, self.markers = self.markers, []
        return markers

    def header(
        self, timestamp: int, *, command: str, title: str, ours: dict[str, object]
    ) -> asciicast.Header:
        """Return the header, with what was requested so far."""
        return asciicast.Header(
            width=self.size[0],
            height=self.size[1],
            timestamp=timestamp,
            command=command,
            title=title,
            env=self._variables,
            ours=ours | self.environment.fields(),
        )


class SessionFacts:
    """The facts of one session. The recorder sets them as they become known."""

    __slots__ = (
        "control", "coverage", "exit_signal", "exit_status", "files", "info", "setup", "start",
    )  # fmt: skip

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self.setup = SessionSetup()
        self.start = StartFacts()
        self.exit_status: int | None = None
        self.exit_signal = ""
        #: The messages besides data that were forwarded from user and from target.
        self.control: tuple[Control | None, Control | None] = (None, None)
        self.files: Files | None = None
        #: What is not in the recording.
        self.coverage: set[NotKept] = set()

    def header(self, now: datetime) -> asciicast.Header:
        """Return the first line, as it is at ``now``."""
        info, start = self.info, self.start
        ours: dict[str, object] = {
            "sid": info.sid,
            "cid": info.cid,
            "user": info.user,
            "login": info.login,
            "target": str(info.target),
            "address": info.address,
            "kind": start.kind,
        }
        if provenance := info.provenance.fields():
            ours["provenance"] = provenance
        if start.kind == "subsystem":
            ours["subsystem"] = start.command
        if start.command_sha256:
            ours["command_sha256"] = start.command_sha256
        return self.setup.header(
            int(now.timestamp()),
            command=start.command if start.kind == "exec" else "",
            title=escape(f"{info.login}@{info.target}"),
            ours=ours,
        )

    def manifest(self, reason: str, failure: RecordingError | None, duration: timedelta) -> Manifest:
        """Return the manifest, without the fields of the file and the streams."""
        info, start = self.info, self.start
        coverage = set(self.coverage)
        if failure:
            coverage.add(NotKept.REST)
        if self.files is not None and self.files.lost:
            coverage.add(NotKept.FILES_LOST)
        if not self.setup.environment.is_complete:
            coverage.add(NotKept.ENV)
        return Manifest(
            sid=info.sid,
            status=Status.FAILED if failure else Status.COMPLETE,
            reason=f"{reason}: {failure.public}" if failure else reason,
            started=info.started,
            ended=info.started + duration,
            cast_size=0,
            cast_sha256="",
            cid=info.cid,
            user=info.user,
            login=info.login,
            target=str(info.target),
            address=info.address,
            provenance=info.provenance,
            roles=info.roles,
            kind=start.kind,
            command=start.command,
            command_sha256=start.command_sha256,
            control_user=self.control[0],
            control_target=self.control[1],
            pty=self.setup.pty,
            exit_status=self.exit_status,
            exit_signal=self.exit_signal,
            files=self.files,
            coverage=tuple(word for word in NotKept if word in coverage),
        )


def _format_variable(label: str, value: KeptText) -> str:
    digest = f" ({value.size} bytes, sha256 {value.sha256})" if value.sha256 else ""
    return f"env {label}={escape(value.text)}{digest}"
