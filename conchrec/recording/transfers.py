"""Which session moves files, and the account of it: what passes, what it came to, and all in all.

A session is recognised by what it asked for: the subsystem ``sftp``, or a command that runs one of the
known programs as the far side of a copy. Recognising one adds an account; whatever is recorded of the
session stays as it is. rsync and git are told by name and by the bytes each way: their protocols are
not read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from conchrec.recording.account import Files, Found, Lost, Operation, Reader
from conchrec.recording.scp import ScpCommand, ScpReader
from conchrec.recording.sftp import SftpReader

_log = Logger()

#: Operations that the manifest lists, and how many characters of paths.
LISTED = 1000
LISTED_TEXT = 256 * 1024
#: What of a command is looked at.
_COMMAND = 8192
_GIT = ("git-upload-pack", "git-receive-pack", "git-upload-archive")
#: Words that stand before a program and run it.
_RUNNERS = frozenset({"exec", "command", "env", "nohup", "nice", "sudo", "doas"})
#: Of their options those that take the next word along.
_WITH_VALUE = frozenset({"-u", "-g", "--user", "--group"})
_ASSIGNMENT = re.compile("[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a session was recognised as. ``by`` is sftp, scp, rsync or git's command; ``scp`` says more."""

    by: str
    scp: ScpCommand | None = None

    @property
    def copies_files(self) -> bool:
        """Is it what ``file_copy: no`` is about?"""
        return self.by in ("sftp", "scp")


def recognise(kind: str, command: str) -> Transfer | None:
    """What moves files in this session; None where it is nothing known. A shell can always hide what it runs.

    ``kind`` is shell, exec or subsystem, ``command`` the command line or the subsystem's name.
    """
    if kind == "subsystem":
        return Transfer(by="sftp") if command == "sftp" else None
    if kind != "exec":
        return None
    for words in _commands(command[:_COMMAND]):
        if (found := _recognise_words(words)) is not None:
            return found
    return None


def transfer_programs(kind: str, command: str) -> frozenset[str]:
    """The transfer programs that a session runs, for the role's switches: sftp, scp, and others."""
    transfer = recognise(kind, command)
    return frozenset((transfer.by,)) if transfer is not None else frozenset()


def _recognise_words(words: list[str]) -> Transfer | None:
    """One simple command."""
    words = _without_runners(words)
    if not words:
        return None
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program in ("sftp-server", "internal-sftp"):
        return Transfer(by="sftp")
    if program == "scp" and (scp := ScpCommand.parse(arguments)) is not None:
        return Transfer(by="scp", scp=scp)
    if program == "rsync" and "--server" in arguments:
        return Transfer(by="rsync")
    if program == "git" and arguments:
        program = f"git-{arguments[0]}"
    return Transfer(by=program) if program in _GIT else None


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line as a shell sees them, as far as words go."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|\n()")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        for word in lexer:
            if word.strip(";&|\n()"):
                words.append(word)
            else:
                yield words
                words = []
    except ValueError:
        pass  # a quote that is not closed: the shell will not run it
    else:
        yield words


def _without_runners(words: list[str]) -> list[str]:
    """``A=1 sudo -u root scp -t .`` is ``scp -t .``"""
    at = 0
    options = False
    while at < len(words):
        word = words[at]
        if options and word.startswith("-"):
            at += 2 if word in _WITH_VALUE else 1
        elif word in _RUNNERS or _ASSIGNMENT.match(word):
            options = True
            at += 1
        else:
            break
    return words[at:]


class Account:
    """What one session does with files. The bytes of both directions go by here; nothing is kept of them.

    Never raises: whatever goes wrong in the reading of a protocol ends the account, not the transfer.
    """

    def __init__(self, transfer: Transfer, monotonic: Callable[[], float]) -> None:
        """``monotonic`` are seconds."""
        self.by = transfer.by
        #: The protocol is read, file by file; else only bytes are counted.
        self.reads = transfer.copies_files
        self._reader: Reader | None = None
        if transfer.scp is not None:
            self._reader = ScpReader(transfer.scp, monotonic)
        elif transfer.by == "sftp":
            self._reader = SftpReader(monotonic)
        self._sent = 0
        self._received = 0
        self._counts = {"read": 0, "write": 0, "changes": 0, "failed": 0}
        self._bytes = {"read": 0, "write": 0}
        self._lost = ""
        self._listed: list[Operation] = []
        self._room = LISTED_TEXT

    def from_user(self, data: bytes) -> Sequence[Found]:
        """What these bytes to the target complete."""
        self._sent += len(data)
        if self._reader is None:
            return ()
        try:
            found = self._reader.from_user(data)
        except Exception:
            return self._broken()
        return self._noted(found) if found else found

    def from_target(self, data: bytes) -> Sequence[Found]:
        """The same of bytes from the target."""
        self._received += len(data)
        if self._reader is None:
            return ()
        try:
            found = self._reader.from_target(data)
        except Exception:
            return self._broken()
        return self._noted(found) if found else found

    def end(self) -> Sequence[Found]:
        """No more bytes: what was not completed."""
        reader, self._reader = self._reader, None
        if reader is None:
            return ()
        try:
            return self._noted(reader.end())
        except Exception:
            return self._broken()

    def files(self) -> Files:
        """All so far."""
        return Files(
            by=self.by,
            sent=self._sent,
            received=self._received,
            read=self._counts["read"],
            read_bytes=self._bytes["read"],
            written=self._counts["write"],
            written_bytes=self._bytes["write"],
            changes=self._counts["changes"],
            failed=self._counts["failed"],
            lost=self._lost,
            operations=tuple(self._listed),
        )

    def _broken(self) -> Sequence[Found]:
        _log.failure("while {by} was read", by=self.by)
        self._reader = None
        return self._noted((Lost(reason="an error of conchrec's own"),))

    def _noted(self, found: Sequence[Found]) -> Sequence[Found]:
        for one in found:
            if isinstance(one, Lost):
                self._lost = one.reason
                continue
            if one.size is None:
                self._counts["changes"] += 1
            else:
                self._counts[one.operation] += 1
                self._bytes[one.operation] += one.size
            if one.result != "ok":
                self._counts["failed"] += 1
            self._room -= sum(map(len, (one.path, one.other, one.name, one.detail, one.result)))
            if len(self._listed) < LISTED and self._room >= 0:
                self._listed.append(one)
        return found
