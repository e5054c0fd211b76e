"""The output, error output and input of a session: counted, hashed, and recorded as far as its policy allows.

The output of a file transfer whose protocol is followed is not recorded: the cast then holds markers, and
``files`` in the manifest has the hash of each file. Input is hashed where there is no terminal, because the
hash of a typed password could be guessed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from conchrec.recording.capture.event_writer import EventWriter, TextStream
from conchrec.recording.capture.terminal_input import CommandList, TerminalInput
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Manifest, StreamTotals
from conchrec.recording.format.settings import InputPolicy

INPUT_KEPT = 1024 * 1024
"""The bytes of standard input that are recorded of a session without a pty, where input is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The bytes of each stream so far."""

    stdout: int
    stderr: int
    stdin: int


class StreamDigest:
    """SHA-256 of a stream, and how many bytes it covers.

    It is computed in the reactor: 32 KiB take 17 microseconds, and a thread costs more than it saves
    (``docs/decisions/digests.md``).
    """

    __slots__ = ("_hash", "size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        """Add the next bytes of the stream."""
        self.size += len(data)
        self._hash.update(data)

    def hexdigest(self) -> str:
        """Return the digest of everything so far."""
        return self._hash.hexdigest()


class CapturedStream:
    """One stream: how many bytes have passed, recorded or not, their digest where one is made, and its
    text."""

    __slots__ = ("digest", "size", "text")

    def __init__(self, code: str, digest: StreamDigest | None = None) -> None:
        self.size = 0
        self.digest = digest
        self.text = TextStream(code)


class StreamCapture:
    """The three streams of one session. ``coverage`` says what is not recorded.

    Each method raises RecordingError where something cannot be kept.
    """

    __slots__ = (
        "_commands", "_coverage", "_input_left", "_policy", "_stderr", "_stdin", "_stdout",
        "_terminal", "_writer", "is_digest_only",
    )  # fmt: skip

    def __init__(
        self,
        writer: EventWriter,
        policy: InputPolicy,
        coverage: set[NotKept],
    ) -> None:
        self._writer = writer
        self._policy = policy
        self._coverage = coverage
        self._stdout = CapturedStream(asciicast.OUTPUT)
        # Players know no other code than `o` for it; the manifest has its size.
        self._stderr = CapturedStream(asciicast.OUTPUT)
        self._stdin = CapturedStream(asciicast.INPUT, StreamDigest())
        self._commands = CommandList()
        self._terminal: TerminalInput | None = None
        #: A file transfer is followed: neither its output nor its input is recorded.
        self.is_digest_only = False
        self._input_left = 0

    @property
    def totals(self) -> Totals:
        """How much has passed, recorded or not."""
        return Totals(stdout=self._stdout.size, stderr=self._stderr.size, stdin=self._stdin.size)

    # -- what is recorded

    def start(self, *, has_pty: bool) -> None:
        """A new program runs from here on: its streams are recorded."""
        self.is_digest_only = False
        self.choose(has_pty=has_pty)

    def choose(self, *, has_pty: bool) -> None:
        """Decide what is recorded of a terminal, and of input, from here on."""
        policy = self._policy
        if not has_pty:
            self._terminal = None
        elif self._terminal is None:
            keep_input = policy is InputPolicy.YES
            self._terminal = TerminalInput(
                self._writer, self._commands, self._coverage, keep_input=keep_input
            )
        if not has_pty and not self.is_digest_only and policy is not InputPolicy.NO:
            self._input_left = max(INPUT_KEPT - self._stdin.size, 0)
        else:
            self._input_left = 0

    def transfer(self, *, digest_only: bool, has_pty: bool) -> None:
        """A file transfer begins: hash its output too, and with ``digest_only`` record nothing of it."""
        if not self._stdout.size:
            self._stdout.digest = StreamDigest()
        self.is_digest_only = digest_only and not has_pty
        self.choose(has_pty=has_pty)

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        """The transfer is not followed any more: record everything, and these bytes, which were counted
        already."""
        if not self.is_digest_only:
            return
        self.is_digest_only = False
        self._input_left = 0 if self._policy is InputPolicy.NO else INPUT_KEPT
        if from_target:
            self._writer.text(self._stdout.text, from_target)
        if from_user:
            self._keep_input(from_user)

    # -- what passes

    def output(self, data: bytes) -> None:
        """Add output of the target."""
        stream = self._stdout
        stream.size += len(data)
        if stream.digest is not None:
            stream.digest.update(data)
        if self.is_digest_only:
            self._coverage.add(NotKept.DIGEST_ONLY)
            return
        self._writer.text(stream.text, data)
        if self._terminal is not None:
            self._terminal.shown(data)

    def error_output(self, data: bytes) -> None:
        """Add error output of the target."""
        self._stderr.size += len(data)
        self._writer.text(self._stderr.text, data)

    def input(self, data: bytes) -> None:
        """Add input of the user."""
        stream = self._stdin
        stream.size += len(data)
        if self._terminal is None and stream.digest is not None:
            stream.digest.update(data)
        if self.is_digest_only:
            self._coverage.add(NotKept.DIGEST_ONLY)
        else:
            self._keep_input(data)

    def withdraw_input(self, size: int) -> None:
        """Do not count ``size`` bytes of the input."""
        self._stdin.size -= size

    def _keep_input(self, data: bytes) -> None:
        """Record input as far as the policy allows; ``coverage`` says what is left out."""
        if self._terminal is not None and self._terminal.typed(data):
            return
        if self._input_left:
            kept = data[: self._input_left]
            self._input_left -= len(kept)
            self._writer.text(self._stdin.text, kept)
            if not self._input_left:
                self._coverage.add(NotKept.LATER_INPUT)
                self._writer.marker("input is not recorded from here on")
        elif NotKept.LATER_INPUT not in self._coverage:
            self._coverage.add(NotKept.INPUT)

    # -- the end

    def end(self) -> None:
        """No more bytes follow: write what is left of each stream."""
        if self._terminal is not None:
            self._terminal.end()
        for stream in (self._stdout, self._stderr, self._stdin):
            self._writer.end(stream.text)
        if self.is_digest_only:
            self._writer.marker(f"{self._stdout.size} bytes out, {self._stdin.size} bytes in")

    def complete(self, manifest: Manifest) -> Manifest:
        """Return ``manifest`` with the fields of the streams."""
        stdin, stdout = self._stdin, self._stdout
        # Not where some of it was typed at a terminal that the target refused later.
        is_hashed = manifest.pty is None and stdin.digest is not None and stdin.digest.size == stdin.size
        return replace(
            manifest,
            input=self._policy.value,
            stdout=StreamTotals(size=stdout.size, sha256=_hexdigest(stdout.digest)),
            stderr=StreamTotals(size=self._stderr.size),
            stdin=StreamTotals(size=stdin.size, sha256=_hexdigest(stdin.digest) if is_hashed else ""),
            commands=self._commands.commands,
            commands_left_out=self._commands.left_out,
        )

    @property
    def is_lossy(self) -> bool:
        """Whether some of the output was not UTF-8."""
        return self._stdout.text.is_lossy or self._stderr.text.is_lossy


def _hexdigest(digest: StreamDigest | None) -> str:
    return digest.hexdigest() if digest is not None else ""
