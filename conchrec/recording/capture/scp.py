"""The old protocol of scp as it flows by: which files were sent, and how that ended.

There is no document but OpenSSH's scp.c. One side sends lines and files, the other answers each::

    T<mtime> 0 <atime> 0\\n      times of what follows (-p)
    C<mode> <size> <name>\\n     a file: when that is answered, its bytes, and then an answer of the sender's
    D<mode> 0 <name>\\n          into a directory (-r);  E\\n  out of it
    \\x01<text>\\n               a warning of the sender's;  \\x02<text>\\n  its last one

    \\x00                        an answer: go on;  \\x01<text>\\n  not this;  \\x02<text>\\n  nothing more

The other side begins, with a ``\\x00``. ``scp -t`` at the target takes files, ``scp -f`` sends them. Some
clients do not wait for answers, so a file's bytes are taken to follow its line unless it was refused before
that. Files are hashed as they pass. Everything kept has a bound; a reader that does not understand what
comes says so once and reads nothing more. No files, no sockets, no clock of its own.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from conchrec.recording.format.transfer_account import (
    PATH_MAX,
    AccountLost,
    Found,
    NotFollowed,
    Operation,
    path_text,
)

#: The longest line. A name is no longer than a path.
LINE = PATH_MAX + 1024
#: How deep directories go, and how many answers may be outstanding where the sender does not wait.
DEPTH = 256
ANSWERS = 64

# A NUL would end the name for the program at the other side, and not for us.
_LINE = re.compile(rb"([CD])([0-7]{4,6}) ([0-9]{1,19}) ([^\0]+)", re.DOTALL)
_TIMES = re.compile(rb"T([0-9]{1,20}) [0-9]{1,6} ([0-9]{1,20}) [0-9]{1,6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpCommand:
    """What ``scp -t`` (``takes``) or ``scp -f`` was asked for. ``directory``: its path must be one (-d)."""

    takes: bool
    paths: tuple[str, ...]
    directory: bool = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> ScpCommand | None:
        """The words after the program's name; None where it is not the far side of a copy."""
        letters = ""
        rest = list(words)
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            letters += word[1:]
        if "t" not in letters and "f" not in letters:
            return None
        return cls(takes="t" in letters, paths=tuple(rest), directory="d" in letters)

    def path(self, name: str) -> str:
        """Where at the target a file is that the sender calls ``name`` (with the directories that it is in),
        as far as that can be known: what was asked for, where it cannot."""
        if self.takes:
            (path,) = self.paths[:1] or ("",)
            # Without -d only the target knows whether it is a directory or the file's new name.
            sure = self.directory or path.endswith("/") or path in ("", ".", "..")
            return posixpath.join(path, name) if sure else path
        top = name.split("/", 1)[0]
        for path in self.paths:
            directory, last = posixpath.split(path.rstrip("/"))
            if last == top or (len(self.paths) == 1 and _is_pattern(last) and not _is_pattern(directory)):
                return posixpath.join(directory, name)
        return " ".join(self.paths)


def _is_pattern(path: str) -> bool:
    """Does the target's shell make names of it?"""
    return not set(path).isdisjoint("*?[{")


class _Expected(Enum):
    """What the next answer is about."""

    START = "start"
    LINE = "line"
    FILE = "file"
    DIRECTORY = "directory"
    END = "end"


class _At(Enum):
    """What the sender's next byte is."""

    LINE = "line"
    DATA = "data"
    STATUS = "status"


@dataclass(slots=True)
class _FileInTransit:
    """A file on its way. ``detail`` is the mode that it is to have, and its times."""

    name: str
    detail: str
    left: int
    began: float
    passed: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    #: How it ended for the sender, and for the other side, which may be the first to say so (pscp is): ``""``
    #: is well. None until they have said it.
    status: str | None = None
    answer: str | None = None


class ScpReader:
    """See the module; an ``account.Reader``. ``monotonic`` are seconds."""

    def __init__(self, command: ScpCommand, monotonic: Callable[[], float]) -> None:
        self._command = command
        self._monotonic = monotonic
        self._found: list[Found] = []
        self._over = False
        # the sender
        self._at = _At.LINE
        self._line = bytearray()
        self._directories: list[str] = []
        #: What a line ``T`` said of what comes next.
        self._times = ""
        self._file: _FileInTransit | None = None
        # the other side
        self._answer = bytearray()
        #: What the answers will be about.
        self._expected: deque[tuple[_Expected, _FileInTransit | None]] = deque([(_Expected.START, None)])

    def from_user(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(data, sends=self._command.takes)

    def from_target(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(data, sends=not self._command.takes)

    def end(self) -> tuple[Found, ...]:
        if not self._over:
            self._give_up("cut short", "no answer")
        return self._taken()

    def _feed(self, data: bytes, *, sends: bool) -> tuple[Found, ...]:
        if self._over:
            return ()
        try:
            if sends:
                self._from_sender(data)
            else:
                self._from_taker(data)
        except NotFollowed as lost:
            self._found.append(AccountLost(reason=str(lost)))
            self._give_up("not known", "not known")
        return self._taken() if self._found else ()

    def _taken(self) -> tuple[Found, ...]:
        found, self._found = self._found, []
        return tuple(found)

    # --- the sender

    def _from_sender(self, data: bytes) -> None:
        view = memoryview(data)
        at = 0
        while at < len(data):
            file = self._file
            if self._at is _At.DATA and file is not None:
                piece = view[at : at + file.left]
                file.digest.update(piece)
                file.passed += len(piece)
                file.left -= len(piece)
                at += len(piece)
                if not file.left:
                    self._at = _At.STATUS
                    self._expect(_Expected.END, file)
            elif self._at is _At.STATUS and not self._line and data[at] == 0:
                at += 1
                self._complete("")
            else:
                stop = _end_of_line(data, at)
                self._line += view[at:stop]
                at = stop
                if len(self._line) > LINE:
                    raise NotFollowed("a line is too long")
                if self._line[-1] == 0x0A:
                    line, self._line = bytes(self._line[:-1]), bytearray()
                    self._line_of_sender(line)

    def _line_of_sender(self, line: bytes) -> None:
        if self._at is _At.STATUS:
            if line[:1] not in (b"\x01", b"\x02"):
                raise NotFollowed("no status byte after a file")
            self._complete(_message(line))
        elif line[:1] in (b"\x01", b"\x02"):
            if not self._command.takes:
                self._tell_none(_message(line))
        elif line == b"E":
            if not self._directories:
                raise NotFollowed("more directories are left than were entered")
            self._directories.pop()
            self._expect(_Expected.LINE)
        elif (times := _TIMES.fullmatch(line)) is not None:
            self._times = f" mtime={int(times[1])} atime={int(times[2])}"
            self._expect(_Expected.LINE)
        elif (found := _LINE.fullmatch(line)) is not None:
            detail, self._times = f"mode={found[2].decode()}{self._times}", ""
            self._begin(found[1], detail, int(found[3]), path_text(found[4]))
        else:
            raise NotFollowed("an invalid line")

    def _begin(self, kind: bytes, detail: str, size: int, name: str) -> None:
        below = "/".join((*self._directories, name))
        if len(self._directories) >= DEPTH or len(below) > 2 * PATH_MAX:
            raise NotFollowed("directories are too deep")
        file = _FileInTransit(below, detail if self._command.takes else "", size, self._monotonic())
        if kind == b"D":
            self._directories.append(name)
            self._expect(_Expected.DIRECTORY, file)
            return
        self._file = file
        self._at = _At.DATA if size else _At.STATUS
        self._expect(_Expected.FILE, file)
        if not size:
            self._expect(_Expected.END, file)

    def _complete(self, problem: str) -> None:
        """The sender has said how the file ended on its side."""
        file, self._file = self._file, None
        self._at = _At.LINE
        if file is not None:
            file.status = problem
            if file.answer is not None:
                self._tell_end(file, file.answer, problem)

    def _expect(self, what: _Expected, file: _FileInTransit | None = None) -> None:
        if len(self._expected) >= ANSWERS:
            raise NotFollowed("too many lines have no answer")
        self._expected.append((what, file))

    # --- the other side

    def _from_taker(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if not self._answer and data[at] == 0:
                at += 1
                self._answered("")
                continue
            stop = _end_of_line(data, at)
            self._answer += data[at:stop]
            at = stop
            if self._answer[0] not in (1, 2):
                raise NotFollowed("an invalid answer")
            if len(self._answer) > LINE:
                raise NotFollowed("an answer is too long")
            if self._answer[-1] == 0x0A:
                line, self._answer = bytes(self._answer[:-1]), bytearray()
                self._answered(_message(line))

    def _answered(self, problem: str) -> None:
        if not self._expected:
            raise NotFollowed("an answer without a line")
        about, file = self._expected.popleft()
        if about is _Expected.START and problem and self._command.takes:
            self._tell_none(problem)
        if file is None:
            return
        if about is _Expected.END:
            file.answer = problem
            if file.status is not None:
                self._tell_end(file, problem, file.status)
        elif about is _Expected.DIRECTORY:
            self._entered(file, problem)
        elif problem:
            self._refused(file, problem)

    def _entered(self, directory: _FileInTransit, problem: str) -> None:
        if problem:
            if self._expected or self._line or self._at is not _At.LINE:
                raise NotFollowed("a directory was refused after it was entered")
            self._directories.pop()
        if self._command.takes:
            path = self._command.path(directory.name)
            self._found.append(
                Operation(
                    operation="directory",
                    path=path,
                    name=directory.name,
                    detail=directory.detail,
                    result=problem or "ok",
                )
            )

    def _refused(self, file: _FileInTransit, problem: str) -> None:
        if file is not self._file or file.passed or self._line:
            raise NotFollowed("a file was refused after it was sent")
        self._file = None
        self._at = _At.LINE
        if self._expected:
            self._expected.popleft()  # its end, where it is empty
        self._tell_file(file, problem)

    # --- what is found

    def _tell_end(self, file: _FileInTransit, answer: str, status: str) -> None:
        """Both sides have said how it ended. What the target says is the result. What the user says is in the
        detail: a sender that reports an error of its own keeps no file from being written."""
        result, said = (answer, status) if self._command.takes else (status, answer)
        if said:
            who = "sender" if self._command.takes else "receiver"
            file.detail = f"{file.detail} {who} reports: {said}".lstrip()
        self._tell_file(file, result)

    def _tell_file(self, file: _FileInTransit, problem: str, why: str = "") -> None:
        whole = not file.left and not problem and not why
        self._found.append(
            Operation(
                operation="write" if self._command.takes else "read",
                path=self._command.path(file.name),
                name=file.name,
                detail=file.detail,
                size=file.passed,
                sha256=file.digest.hexdigest() if whole else "",
                unhashed="" if whole else why or "it failed",
                result=problem or "ok",
                duration=self._monotonic() - file.began,
            )
        )

    def _tell_none(self, problem: str) -> None:
        """Nothing of what was asked for, or not all of it, is sent."""
        self._found.append(
            Operation(
                operation="write" if self._command.takes else "read",
                path=" ".join(self._command.paths),
                size=0,
                unhashed="not sent",
                result=problem,
            )
        )

    def _give_up(self, passing: str, sent: str) -> None:
        """Nothing more is read: tell what is on its way as ``passing``, what has no answer as ``sent``."""
        self._over = True
        for about, file in self._expected:
            if about is _Expected.END and file is not None and file is not self._file:
                told = None if self._command.takes else file.status
                self._tell_file(file, told or sent, sent)
        if self._file is not None:
            self._tell_file(self._file, passing, passing)
        self._expected.clear()
        self._file = None


def _end_of_line(data: bytes, at: int) -> int:
    """Behind the newline; where there is none, as far as a line may go and one byte more."""
    return data.find(b"\n", at, at + LINE) + 1 or min(len(data), at + LINE + 1)


def _message(line: bytes) -> str:
    """What stands behind ``\\x01``; never empty, for that would be no problem."""
    return path_text(line[1:]).strip() or "it failed"
