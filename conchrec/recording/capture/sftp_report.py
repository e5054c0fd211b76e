"""What the account of an SFTP session reports: files, and other changes at the target."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.file_contents import FileContents
from conchrec.recording.capture.sftp_requests import NamedRequest, OpenFile
from conchrec.recording.format.transfer_account import AccountLost, Operation, TransferFact, path_text


class SftpReport:
    """Collects facts until they are taken. ``monotonic`` returns seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        #: The target announces extensions of OpenSSH, so the paths of SYMLINK are in the opposite order of
        #: the draft (OpenSSH's PROTOCOL, section 4.1).
        self.is_openssh = False
        self._facts: list[TransferFact] = []

    def take(self) -> tuple[TransferFact, ...]:
        """Remove and return the facts."""
        if not self._facts:
            return ()
        facts, self._facts = self._facts, []
        return tuple(facts)

    def add_loss(self, reason: str, *, from_user: bytes, from_target: bytes) -> None:
        """Report that nothing more is read, with the bytes that were not read."""
        self._facts.append(AccountLost(reason=reason, from_user=from_user, from_target=from_target))

    def add_file(self, file: OpenFile) -> None:
        """Report what passed of a file in each direction; where nothing did, what opening it did."""
        if file.directory:
            return
        if file.was_read:
            digest = file.read.close(file.end, "not read to its end")
            self._add_transfer(file, "read", file.read, *digest)
        if file.was_written:
            digest = file.written.close(file.cleared, "what was in the file before is not known")
            self._add_transfer(file, "write", file.written, *digest)

    def _add_transfer(
        self, file: OpenFile, operation: str, contents: FileContents, sha256: str, unhashed: str
    ) -> None:
        self._facts.append(
            Operation(
                operation=operation,
                path=path_text(file.path),
                detail=file.detail,
                size=contents.passed,
                sha256=sha256,
                unhashed=unhashed,
                result=contents.result or "ok",
                duration=self.monotonic() - file.began,
            )
        )

    def add_refused_open(self, request: NamedRequest, result: str) -> None:
        """Report a file that was not opened; nothing for a directory."""
        if request.kind == wire.OPEN:
            self._facts.append(
                Operation(
                    operation="write" if request.flags & wire.MODIFIES else "read",
                    path=path_text(request.path),
                    detail=request.detail,
                    size=0,
                    unhashed="not opened",
                    result=result,
                    duration=self.monotonic() - request.began,
                )
            )

    def add_change(self, request: NamedRequest, result: str) -> None:
        """Report a change other than of contents."""
        path, other = request.path, request.other
        if request.kind == wire.SYMLINK and self.is_openssh:
            path, other = other, path
        self._facts.append(
            Operation(
                operation=request.operation,
                path=path_text(path),
                other=path_text(other),
                detail=request.detail,
                result=result,
                duration=self.monotonic() - request.began,
            )
        )
