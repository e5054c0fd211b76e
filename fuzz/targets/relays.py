"""A recorded session between a user and a target that both misbehave: relay, lanes, session and recorder.

Their messages come without a transport; the files are in memory. Each message is ``byte side, byte number,
payload``, where an even side is the user's.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from conchrec.access.options import SessionOptions
from conchrec.audit.events import AuditEvent
from conchrec.model import Identity, SessionInfo
from conchrec.proxy.inner.session import Session
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.asciicast import Event, Header
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.format.settings import InputPolicy
from conchrec.recording.storage.spool import Spool
from conchrec.recording.store import LocalStore
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.messages import UNKNOWN_CHANNEL_TYPE
from conchrec.ssh.wire import string, uint32
from fuzz.limits import Broken
from fuzz.sequence import unpack
from fuzz.target import Target
from fuzz.targets.connections import WINDOW, on, opening, request
from fuzz.targets.linked import message, packed
from fuzz.targets.parsers import EXIT_SIGNAL, PTY
from tests.support.context import memory_context, root_at_web1
from tests.support.loop import Handler, Wire

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PATH = Path("one.cast")
#: What the recorders and the held messages of one session of this may take.
CHANNELS = 16


class _File:
    """A SpoolFile in memory."""

    def __init__(self) -> None:
        self.contents = bytearray()

    def write(self, *pieces: bytes | memoryview) -> int:
        data = b"".join(pieces)
        self.contents += data
        return len(data)

    def truncate(self, size: int, /) -> None:
        del self.contents[size:]

    def sync(self) -> None:
        """It is as safe as it gets."""

    def close(self) -> None:
        """Nothing to let go of."""


class _Store(LocalStore):
    """A store in memory: it opens recordings, and reads each when it is sealed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files: dict[SessionRecorder, _File] = {}
        self.sealed = 0

    @property
    def opened(self) -> int:
        return len(self._files)

    def open(self, info: SessionInfo) -> SessionRecorder:
        file = _File()
        recorder = SessionRecorder(
            info, Spool(file), PATH, store=self, policy=InputPolicy.YES,
            monotonic=self._clock.seconds, now=lambda: NOW,
        )  # fmt: skip
        self._files[recorder] = file
        return recorder

    def flush_soon(self, recorder: SessionRecorder) -> None:
        self._clock.callLater(0, recorder.background.flush)

    def sync_later(self, recorder: SessionRecorder) -> None:
        """As it should be."""

    def sync(self, recorder: SessionRecorder) -> Deferred[None]:
        return succeed(None)

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        return "1"

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        self.sealed += 1
        first, *rest = bytes(self._files[recorder].contents).splitlines()
        Header.parse(first)
        times = [Event.parse(line).time for line in rest]
        if times != sorted(times):
            raise Broken("time goes backwards")
        return succeed(ClosedRecording(path=PATH, manifest=manifest))


class _PrintableEvents:
    """An AuditSink that keeps nothing; each event can be printed."""

    def emit(self, event: AuditEvent) -> None:
        repr(event)

    def reopen(self) -> None:
        """Do nothing: there is no file."""


class Between:
    """The user's connection and the target's, and what the proxy has between them."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._store = _Store(self._clock)
        self._sessions: list[Session] = []
        self._over = 0
        self._wires = (Wire(), Wire())
        self._user = Connection(self, max_channels=CHANNELS)
        self._target = Connection(Handler(), max_channels=CHANNELS)
        for connection, wire in zip((self._user, self._target), self._wires, strict=True):
            connection.transport = wire
            connection.serviceStarted()
        context = memory_context(
            store=self._store, now=lambda: NOW, clock=self._clock, audit=_PrintableEvents()
        )
        self._access = root_at_web1(
            context, Identity(user="joe", method="publickey"), SessionOptions(sftp=False, scp=False)
        )

    # --- ConnectionHandler, for the user's side

    def connection_started(self, connection: Connection) -> None:
        """This has it."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Answer a channel open of the peer."""
        if opening.channel.kind != b"session":
            opening.refuse(UNKNOWN_CHANNEL_TYPE, "")
            return
        session = Session(
            self._access, opening, inner_settled=lambda: None, on_end=self._ended, on_granted=lambda: None
        )
        turn = len(self._sessions) % 3
        self._sessions.append(session)
        # The first is confirmed before the target's channel is there, the second after it, the third
        # waits for a target that never comes.
        if turn != 1:
            session.confirm_early()
        if turn != 2:
            session.open_target(self._target)

    def global_requested(self, request: IncomingRequest) -> None:
        """Answer a global request of the peer."""
        self._target.request(request.name, request.extra, request.reply)

    def connection_stopped(self) -> None:
        """It is over."""

    def _ended(self, session: Session) -> None:
        self._over += 1

    # --- the session of the fuzzer

    def feed(self, data: bytes) -> bool:
        """Give one input; return whether the session goes on."""
        for each in unpack(data):
            if len(each) > 1:
                connection = self._target if each[0] % 2 else self._user
                connection.packetReceived(each[1], each[2:])
        self._clock.advance(0.01)
        for wire in self._wires:
            if len(wire.sent) > 10_000 + len(data):
                raise Broken(f"{len(wire.sent)} messages are the answer")
            wire.sent.clear()
        return all(wire.disconnected is None for wire in self._wires)

    def end(self) -> None:
        """End the session, and check what must hold at its end."""
        self._target.serviceStopped()
        self._user.serviceStopped()
        self._clock.advance(600)
        if self._over != len(self._sessions):
            raise Broken(f"{self._over} of {len(self._sessions)} sessions are over")
        for wire in self._wires:
            if wire.disconnected is not None and wire.disconnected[1] == b"internal error":
                raise Broken("internal error")
        if calls := self._clock.getDelayedCalls():
            raise Broken(f"calls are left: {calls}")


def _near(*messages: bytes) -> list[bytes]:
    return [b"\0" + each for each in messages]


def _far(*messages: bytes) -> list[bytes]:
    return [b"\1" + each for each in messages]


def _corpus() -> list[bytes]:
    """The user's first channel has the number 0 with us; so has the one that we open for it at the target."""
    granted = on(91, 0, uint32(5) + WINDOW + uint32(32768))
    data = string("grün\r\n".encode() + b"\x1b[31m\xff")
    no = on(92, 1, uint32(2) + string(b"no") + string(b""))
    begin = _near(opening(b"session"), request(0, b"pty-req", PTY), request(0, b"shell"))
    return packed(
        [*begin, *_far(granted, on(99, 0), on(94, 0, data))],
        [*_near(opening(b"session"), request(0, b"exec", string(b"id"))), *_far(granted, on(100, 0))],
        [*_near(on(94, 0, data), on(95, 0, uint32(1) + data), on(93, 0, WINDOW), on(96, 0), on(97, 0))],
        [*_far(on(94, 0, data), on(95, 0, uint32(1) + data), on(93, 0, WINDOW), on(96, 0), on(97, 0))],
        [*_far(request(0, b"exit-status", uint32(1)), request(0, b"exit-signal", EXIT_SIGNAL), on(97, 0))],
        _near(
            request(0, b"window-change", uint32(99) * 4),
            request(0, b"env", string(b"TERM") + string(b"xterm")),
            request(0, b"signal", string(b"INT")),
            request(0, b"subsystem", string(b"sftp")),
            request(0, b"x11-req", b"\0" + string(b"MIT") + string(b"00") + uint32(0)),
            request(0, b"auth-agent-req@openssh.com"),
        ),
        [*_near(opening(b"session"), opening(b"session", window=0)), *_far(granted, no)],
        [*_near(message(80, string(b"x") + b"\1")), *_far(message(81, uint32(1)), message(82))],
        [*begin, *_far(on(92, 0, uint32(1) + string(b"\x1b[31mno") + string(b"")))],
    )


TARGET = Target(
    name="relay",
    about="a user and a target with a recorded session between them: relay/relay.py, inner/session.py",
    corpus=_corpus,
    begin=Between,
    packed=True,
    length=50,
)
