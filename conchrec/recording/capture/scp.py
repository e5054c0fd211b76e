"""Follows the old protocol of scp: which files were sent, and with which result.

Its only specification is OpenSSH's scp.c. One side sends lines and files, and the other side answers each::

    T<mtime> 0 <atime> 0\\n      times of what follows (-p)
    C<mode> <size> <name>\\n     a file: after the answer its bytes, and then a status of the sender
    D<mode> 0 <name>\\n          enter a directory (-r);  E\\n  leave it
    \\x01<text>\\n               a warning of the sender;  \\x02<text>\\n  its last one

    \\x00                        an answer: continue;  \\x01<text>\\n  not this;  \\x02<text>\\n  nothing more

The other side begins, with a ``\\x00``. ``scp -t`` at the target receives files, and ``scp -f`` sends them.
Some clients do not wait for answers, so the bytes of a file are expected after its line unless it was refused
before that. Files are hashed as they pass. Everything that is kept has a limit. A reader that does not
understand the protocol reports that once and reads nothing more. It has no files, no sockets, and no clock of
its own.
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
    NotFollowed,
    Operation,
    TransferFact,
    path_text,
)

#: The longest line. A name is no longer than a path.
LINE = PATH_MAX + 1024
#: The deepest level of directories, and the most answers that may be missing where the sender does not wait.
DEPTH = 256
ANSWERS = 64

# A NUL would end the name for the program at the other side, but not here.
_LINE = re.compile(rb"([CD])([0-7]{4,6}) ([0-9]{1,19}) ([^\0]+)", re.DOTALL)
_TIMES = re.compile(rb"T([0-9]{1,20}) [0-9]{1,6} ([0-9]{1,20}) [0-9]{1,6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpCommand:
    """The arguments of ``scp -t`` (``to_target``) or ``scp -f``. ``directory``: the path must be a directory
    (-d)."""

    to_target: bool
    paths: tuple[str, ...]
    directory: bool = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> ScpCommand | None:
        """Read the words after the program's name. Returns None where it is not the far side of a copy."""
        letters = ""
        rest = list(words)
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            letters += word[1:]
        if "t" not in letters and "f" not in letters:
            return None
        return cls(to_target="t" in letters, paths=tuple(rest), directory="d" in letters)

    def path(self, name: str) -> str:
        """Return where at the target a file is that the sender calls ``name`` (with its directories), as far
        as that can be known; else the path of the command."""
        if self.to_target:
            (path,) = self.paths[:1] or ("",)
            # Without -d only the target knows whether the path is a directory or the new name of the file.
            is_directory = self.directory or path.endswith("/") or path in ("", ".", "..")
            return posixpath.join(path, name) if is_directory else path
        top = name.split("/", 1)[0]
        for path in self.paths:
            directory, last = posixpath.split(path.rstrip("/"))
            if last == top or (len(self.paths) == 1 and _is_pattern(last) and not _is_pattern(directory)):
                return posixpath.join(directory, name)
        return " ".join(self.paths)


def _is_pattern(path: str) -> bool:
    """Return whether the shell of the target expands this path."""
    return not set(path).isdisjoint("*?[{")


class _AnswerTo(Enum):
    """What the next answer refers to."""

    START = "start"
    LINE = "line"
    FILE = "file"
    DIRECTORY = "directory"
    END = "end"


class _SenderState(Enum):
    """What the next byte of the sender belongs to."""

    LINE = "line"
    DATA = "data"
    STATUS = "status"


@dataclass(slots=True)
class _FileInTransit:
    """A file that is being sent. ``detail`` has its mode and its times."""

    name: str
    detail: str
    left: int
    began: float
    passed: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    #: The result that the sender reports, and that of the other side, which may report first (for pscp):
    #: empty is success, None is no report yet.
    status: str | None = None
    answer: str | None = None


class ScpReader:
    """A ProtocolReader of scp. ``monotonic`` returns seconds."""

    def __init__(self, command: ScpCommand, monotonic: Callable[[], float]) -> None:
        self._command = command
        self._monotonic = monotonic
        self._facts: list[TransferFact] = []
        self._is_over = False
        # The sender.
        self._state = _SenderState.LINE
        self._line = bytearray()
        self._directories: list[str] = []
        #: The times in a line ``T``, for the next file.
        self._times = ""
        self._file: _FileInTransit | None = None
        # The other side.
        self._answer = bytearray()
        #: What the next answers refer to.
        self._unanswered: deque[tuple[_AnswerTo, _FileInTransit | None]] = deque([(_AnswerTo.START, None)])

    def from_user(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes to the target. Returns what they complete."""
        return self._feed(data, sends=self._command.to_target)

    def from_target(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes from the target. Returns what they complete."""
        return self._feed(data, sends=not self._command.to_target)

    def end(self) -> tuple[TransferFact, ...]:
        """No more bytes follow. Returns what was not completed."""
        if not self._is_over:
            self._give_up("cut short", "no answer")
        return self._take_facts()

    def _feed(self, data: bytes, *, sends: bool) -> tuple[TransferFact, ...]:
        if self._is_over:
            return ()
        try:
            if sends:
                self._from_sender(data)
            else:
                self._from_receiver(data)
        except NotFollowed as lost:
            self._facts.append(AccountLost(reason=str(lost)))
            self._give_up("not known", "not known")
        return self._take_facts() if self._facts else ()

    def _take_facts(self) -> tuple[TransferFact, ...]:
        facts, self._facts = self._facts, []
        return tuple(facts)

    # --- the sender

    def _from_sender(self, data: bytes) -> None:
        view = memoryview(data)
        at = 0
        while at < len(data):
            file = self._file
            if self._state is _SenderState.DATA and file is not None:
                piece = view[at : at + file.left]
                file.digest.update(piece)
                file.passed += len(piece)
                file.left -= len(piece)
                at += len(piece)
                if not file.left:
                    self._state = _SenderState.STATUS
                    self._expect(_AnswerTo.END, file)
            elif self._state is _SenderState.STATUS and not self._line and data[at] == 0:
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
        if self._state is _SenderState.STATUS:
            if line[:1] not in (b"\x01", b"\x02"):
                raise NotFollowed("no status byte after a file")
            self._complete(_message(line))
        elif line[:1] in (b"\x01", b"\x02"):
            if not self._command.to_target:
                self._report_nothing_sent(_message(line))
        elif line == b"E":
            if not self._directories:
                raise NotFollowed("more directories are left than were entered")
            self._directories.pop()
            self._expect(_AnswerTo.LINE)
        elif (times := _TIMES.fullmatch(line)) is not None:
            self._times = f" mtime={int(times[1])} atime={int(times[2])}"
            self._expect(_AnswerTo.LINE)
        elif (match := _LINE.fullmatch(line)) is not None:
            detail, self._times = f"mode={match[2].decode()}{self._times}", ""
            self._begin(match[1], detail, int(match[3]), path_text(match[4]))
        else:
            raise NotFollowed("an invalid line")

    def _begin(self, kind: bytes, detail: str, size: int, name: str) -> None:
        below = "/".join((*self._directories, name))
        if len(self._directories) >= DEPTH or len(below) > 2 * PATH_MAX:
            raise NotFollowed("directories are too deep")
        file = _FileInTransit(below, detail if self._command.to_target else "", size, self._monotonic())
        if kind == b"D":
            self._directories.append(name)
            self._expect(_AnswerTo.DIRECTORY, file)
            return
        self._file = file
        self._state = _SenderState.DATA if size else _SenderState.STATUS
        self._expect(_AnswerTo.FILE, file)
        if not size:
            self._expect(_AnswerTo.END, file)

    def _complete(self, problem: str) -> None:
        """The sender has reported how the file ended on its side."""
        file, self._file = self._file, None
        self._state = _SenderState.LINE
        if file is not None:
            file.status = problem
            if file.answer is not None:
                self._report_end(file, file.answer, problem)

    def _expect(self, what: _AnswerTo, file: _FileInTransit | None = None) -> None:
        if len(self._unanswered) >= ANSWERS:
            raise NotFollowed("too many lines have no answer")
        self._unanswered.append((what, file))

    # --- the other side

    def _from_receiver(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if not self._answer and data[at] == 0:
                at += 1
                self._handle_answer("")
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
                self._handle_answer(_message(line))

    def _handle_answer(self, problem: str) -> None:
        if not self._unanswered:
            raise NotFollowed("an answer without a line")
        about, file = self._unanswered.popleft()
        if about is _AnswerTo.START and problem and self._command.to_target:
            self._report_nothing_sent(problem)
        if file is None:
            return
        if about is _AnswerTo.END:
            file.answer = problem
            if file.status is not None:
                self._report_end(file, problem, file.status)
        elif about is _AnswerTo.DIRECTORY:
            self._directory_answered(file, problem)
        elif problem:
            self._file_refused(file, problem)

    def _directory_answered(self, directory: _FileInTransit, problem: str) -> None:
        if problem:
            if self._unanswered or self._line or self._state is not _SenderState.LINE:
                raise NotFollowed("a directory was refused after it was entered")
            self._directories.pop()
        if self._command.to_target:
            path = self._command.path(directory.name)
            self._facts.append(
                Operation(
                    operation="directory",
                    path=path,
                    name=directory.name,
                    detail=directory.detail,
                    result=problem or "ok",
                )
            )

    def _file_refused(self, file: _FileInTransit, problem: str) -> None:
        if file is not self._file or file.passed or self._line:
            raise NotFollowed("a file was refused after it was sent")
        self._file = None
        self._state = _SenderState.LINE
        if self._unanswered:
            self._unanswered.popleft()  # the end of an empty file
        self._report_file(file, problem)

    # --- facts

    def _report_end(self, file: _FileInTransit, answer: str, status: str) -> None:
        """Both sides have reported how the file ended. The report of the target is the result. That of the
        user is in the detail: an error of the sender does not prevent the file from being written."""
        result, report = (answer, status) if self._command.to_target else (status, answer)
        if report:
            who = "sender" if self._command.to_target else "receiver"
            file.detail = f"{file.detail} {who} reports: {report}".lstrip()
        self._report_file(file, result)

    def _report_file(self, file: _FileInTransit, problem: str, reason: str = "") -> None:
        is_complete = not file.left and not problem and not reason
        self._facts.append(
            Operation(
                operation="write" if self._command.to_target else "read",
                path=self._command.path(file.name),
                name=file.name,
                detail=file.detail,
                size=file.passed,
                sha256=file.digest.hexdigest() if is_complete else "",
                unhashed="" if is_complete else reason or "it failed",
                result=problem or "ok",
                duration=self._monotonic() - file.began,
            )
        )

    def _report_nothing_sent(self, problem: str) -> None:
        """Report that a requested file, or some of them, are not sent."""
        self._facts.append(
            Operation(
                operation="write" if self._command.to_target else "read",
                path=" ".join(self._command.paths),
                size=0,
                unhashed="not sent",
                result=problem,
            )
        )

    def _give_up(self, unfinished: str, unanswered: str) -> None:
        """Read nothing more: report the file in transit as ``unfinished``, and files without an answer as
        ``unanswered``."""
        self._is_over = True
        for about, file in self._unanswered:
            if about is _AnswerTo.END and file is not None and file is not self._file:
                result = None if self._command.to_target else file.status
                self._report_file(file, result or unanswered, unanswered)
        if self._file is not None:
            self._report_file(self._file, unfinished, unfinished)
        self._unanswered.clear()
        self._file = None


def _end_of_line(data: bytes, at: int) -> int:
    """Return the position after the newline; without one, the longest line and one byte more."""
    return data.find(b"\n", at, at + LINE) + 1 or min(len(data), at + LINE + 1)


def _message(line: bytes) -> str:
    """Return the text after ``\\x01``; never empty, because that would be no error."""
    return path_text(line[1:]).strip() or "it failed"
