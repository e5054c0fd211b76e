"""Recognises sessions that transfer files, and keeps an account of what they transfer.

A session is recognised by its start request: the subsystem ``sftp``, or a command that runs one of the known
programs as the far side of a copy. For the options of a role it is enough that the name of such a program
stands in the command (``transfer_programs``). An account is made where the command is understood
(``recognise``); it adds to the recording of a command and removes nothing from it. Of rsync and git only the
name and the bytes in each direction are known: their protocols are not read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from twisted.logger import Logger

from conchrec.recording.capture.scp import ScpCommand, ScpReader
from conchrec.recording.capture.sftp import SftpReader
from conchrec.recording.format.transfer_account import (
    AccountLost,
    Files,
    Operation,
    ProtocolReader,
    TransferFact,
)

_log = Logger()

#: The operations that the manifest lists, and the most characters of their paths.
LISTED = 1000
LISTED_TEXT = 256 * 1024
#: The longest command that is recognised.
_COMMAND = 8192
_GIT = ("git-upload-pack", "git-receive-pack", "git-upload-archive")
_SFTP = ("sftp-server", "internal-sftp")
#: The name of each transfer program as a word of a command, with or without a directory before it. The
#: pattern begins with the name, because a search for literal letters is ten times as fast.
_PROGRAMS = {
    name: re.compile(rf"{name}(?<![\w.-]{name})(?![\w./-])") for name in ("scp", "rsync", *_SFTP, *_GIT)
}
#: scp is the far side of a copy with -t or -f, which may be the result of an expansion.
_SCP_OPTION = re.compile(r"(?<!\S)-\w*[tf]|[$`{*?\[]")
#: A command without any of these runs no transfer program. To split it into words would cost a millisecond.
_HINT = re.compile("scp|sftp|rsync|git")
_NO_QUOTES = str.maketrans("", "", "'\"\\")
#: A line without any of these is one simple command.
_COMPOUND = frozenset("`$;&|<>()\n\r")
#: Words that stand before a program and run it.
_RUNNERS = frozenset({"exec", "command", "env", "nohup", "nice", "sudo", "doas"})
#: Their options that have a value in the next word.
_WITH_VALUE = frozenset({"-u", "-g", "--user", "--group"})
_ASSIGNMENT = re.compile("[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedTransfer:
    """What a session was recognised as.

    ``by`` is sftp, scp, rsync or the command of git; ``scp`` has the arguments of scp. ``mixed``: other
    programs may run in the same command. ``unread`` says, where that is so, why its protocol is not read.
    """

    by: str
    scp: ScpCommand | None = None
    mixed: bool = False
    unread: str = ""

    @property
    def copies_files(self) -> bool:
        """Whether ``file_copy: no`` forbids it."""
        return self.by in ("sftp", "scp")


def recognise(kind: str, command: str) -> RecognisedTransfer | None:
    """Return the transfer that a session is, or None.

    ``kind`` is shell, exec or subsystem, ``command`` the command line or the name of the subsystem. A command
    that may run more than one program does not count as rsync or git: its bytes are not only theirs.
    """
    if kind == "subsystem":
        return RecognisedTransfer(by="sftp") if command == "sftp" else None
    if kind != "exec" or len(command) > _COMMAND or not _HINT.search(_unquoted(command)):
        return None
    commands = list(_commands(command))
    transfers = list(filter(None, map(_recognise_words, commands)))
    copies = [transfer for transfer in transfers if transfer.copies_files]
    if not _COMPOUND.isdisjoint(command) or any(map(_sets_environment, commands)):
        if not copies:
            return None
        several = len({(transfer.by, transfer.scp) for transfer in transfers}) > 1
        unread = "the command runs several transfer programs" if several else ""
        return replace(copies[0], mixed=True, unread=unread)
    return transfers[0] if transfers else None


def transfer_programs(kind: str, command: str) -> frozenset[str]:
    """Return the transfer programs whose names stand anywhere in a start request: sftp, scp, rsync, and those
    of git.

    This is for the options of a role, which must not be bypassed by text before or around the program: quotes
    and backslashes are removed as a shell does, and the whole command is searched. scp counts where -t or -f
    may be one of its options. Variables, patterns and scripts can still hide a name: anyone who may run
    commands can copy files.
    """
    if kind == "subsystem":
        return frozenset(("sftp",)) if command == "sftp" else frozenset()
    if kind != "exec":
        return frozenset()
    unquoted = _unquoted(command)
    names = {name for name, pattern in _PROGRAMS.items() if pattern.search(unquoted)}
    if "scp" in names and not _SCP_OPTION.search(unquoted):
        names.discard("scp")
    if names.intersection(_SFTP):
        names = (names - set(_SFTP)) | {"sftp"}
    return frozenset(names)


def _unquoted(command: str) -> str:
    """Return the command without what a shell removes from a word: ``s\\cp``, ``$'scp'`` and ``"scp"`` are
    scp."""
    joined = command.replace("\\\n", "")
    return joined.replace("$'", "'").replace('$"', '"').translate(_NO_QUOTES)


def _recognise_words(words: list[str]) -> RecognisedTransfer | None:
    """Recognise one simple command."""
    words = _without_runners(words)
    if not words:
        return None
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program in _SFTP:
        return RecognisedTransfer(by="sftp")
    if program == "scp" and (scp := ScpCommand.parse(arguments)) is not None:
        return RecognisedTransfer(by="scp", scp=scp)
    if program == "rsync" and "--server" in arguments:
        return RecognisedTransfer(by="rsync")
    if program == "git" and arguments:
        program = f"git-{arguments[0]}"
    return RecognisedTransfer(by=program) if program in _GIT else None


def _sets_environment(words: list[str]) -> bool:
    """Return whether a variable assignment stands before the program: with LD_PRELOAD it runs anything."""
    program = _without_runners(words)
    return any(_ASSIGNMENT.match(word) for word in words[: len(words) - len(program)])


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a line as a shell reads them, as far as splitting into words allows."""
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
        pass  # an unclosed quote: the shell will not run the line
    else:
        yield words


def _without_runners(words: list[str]) -> list[str]:
    """Return ``scp -t .`` for ``A=1 sudo -u root scp -t .``."""
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


class TransferAccount:
    """The account of one session's transfers. The bytes of both directions pass through it; it keeps none.

    It never raises: an error while a protocol is read ends the account, not the transfer.
    """

    def __init__(self, transfer: RecognisedTransfer, monotonic: Callable[[], float]) -> None:
        """``monotonic`` returns seconds."""
        self.by = transfer.by
        #: The protocol is followed, file by file; else only bytes are counted.
        self.reads = transfer.copies_files
        self._mixed = transfer.mixed
        self._unread = transfer.unread
        self._reader: ProtocolReader | None = None
        if transfer.unread:
            pass
        elif transfer.scp is not None:
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

    def begin(self) -> Sequence[TransferFact]:
        """Return why the protocol will not be read, where that is so. Called before any bytes pass."""
        return self._count((AccountLost(reason=self._unread),)) if self._unread else ()

    def from_user(self, data: bytes) -> Sequence[TransferFact]:
        """Read bytes to the target. Returns what they complete."""
        self._sent += len(data)
        if self._reader is None:
            return ()
        try:
            facts = self._reader.from_user(data)
        except Exception:
            return self._abandon(from_user=data)
        return self._count(facts) if facts else facts

    def from_target(self, data: bytes) -> Sequence[TransferFact]:
        """Read bytes from the target. Returns what they complete."""
        self._received += len(data)
        if self._reader is None:
            return ()
        try:
            facts = self._reader.from_target(data)
        except Exception:
            return self._abandon(from_target=data)
        return self._count(facts) if facts else facts

    def end(self) -> Sequence[TransferFact]:
        """No more bytes follow. Returns what was not completed."""
        reader, self._reader = self._reader, None
        if reader is None:
            return ()
        try:
            return self._count(reader.end())
        except Exception:
            return self._abandon()

    def files(self) -> Files:
        """Return the totals so far."""
        return Files(
            by=self.by,
            mixed=self._mixed,
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

    def _abandon(self, from_user: bytes = b"", from_target: bytes = b"") -> Sequence[TransferFact]:
        _log.failure("internal error: the protocol of {by} is not followed any more", by=self.by)
        self._reader = None
        reason = "an internal error in conchrec"
        return self._count((AccountLost(reason=reason, from_user=from_user, from_target=from_target),))

    def _count(self, facts: Sequence[TransferFact]) -> Sequence[TransferFact]:
        for fact in facts:
            if isinstance(fact, AccountLost):
                self._lost = fact.reason
                continue
            if fact.size is None:
                self._counts["changes"] += 1
            else:
                self._counts[fact.operation] += 1
                self._bytes[fact.operation] += fact.size
            if fact.result != "ok":
                self._counts["failed"] += 1
            self._room -= sum(map(len, (fact.path, fact.other, fact.name, fact.detail, fact.result)))
            if len(self._listed) < LISTED and self._room >= 0:
                self._listed.append(fact)
        return facts
