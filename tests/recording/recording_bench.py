"""A local store with a fake clock, whose threads are ordinary calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from conchrec.model import SessionInfo, Target
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.evidence.ledger_reader import LedgerReader
from conchrec.recording.evidence.verify import Verifier, VerifyResult
from conchrec.recording.format.asciicast import Event, Header
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.settings import Fsync, InputPolicy
from conchrec.recording.format.signatures import CHECKPOINT, RecordingSigner
from conchrec.recording.recovery import Recovered
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.storage.spool import SpoolFile, create
from conchrec.recording.store import LocalStore

T = TypeVar("T")
KEY = Ed25519PrivateKey.generate()
SIGNER = RecordingSigner(KEY)
NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)


def at_once(work: Callable[[], T]) -> Deferred[T]:
    """A thread that has always finished already."""
    return execute(work)


def result(deferred: Deferred[T]) -> T:
    """Return the result of a Deferred that has fired; its error is raised."""
    values: list[T] = []
    errors: list[BaseException] = []
    deferred.addCallbacks(values.append, lambda failure: errors.append(failure.value))
    if errors:
        raise errors[0]
    assert values, "has not fired"
    return values[0]


@dataclass(kw_only=True)
class Bench:
    """A directory, a clock, and the stores on them."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    wall: datetime = NOON

    def now(self) -> datetime:
        return self.wall + timedelta(seconds=self.clock.seconds())

    def store(
        self,
        *,
        policy: InputPolicy = InputPolicy.NO,
        fsync: Fsync = Fsync.INTERVAL,
        min_free: int = 0,
        create: Callable[[str, int], SpoolFile] = create,
        timers: Clock | None = None,
        compress: bool = False,
        recipients: tuple[str, ...] = (),
    ) -> LocalStore:
        return LocalStore(
            finisher=Finisher(RecordingTree(self.directory), SIGNER, self.now, recipients=recipients),
            compress=compress,
            clock=timers or self.clock,
            in_thread=at_once,
            min_free=min_free,
            policy=policy,
            fsync=fsync,
            monotonic=self.clock.seconds,
            now=self.now,
            create=create,
        )

    def info(self, **changes: str) -> SessionInfo:
        known = {"cid": "c1", "user": "joe", "login": "root", "address": "192.0.2.7:50000"} | changes
        return SessionInfo(
            sid=known.get("sid") or new_session_id(self.now()),
            cid=known["cid"],
            user=known["user"],
            login=known["login"],
            target=Target(host="web1"),
            address=known["address"],
            started=self.now(),
            roles=("ops",),
        )

    def recorder(self, *, policy: InputPolicy = InputPolicy.NO) -> SessionRecorder:
        return self.store(policy=policy).open(self.info())

    def close(self, recorder: SessionRecorder) -> ClosedRecording:
        return result(recorder.close("the session ended"))

    def recover(self) -> tuple[Recovered, ...]:
        return result(self.store().recover())

    def verify(self, sid: str, head: str = "") -> VerifyResult:
        """Return the verifier's result for one recording; the ledger must be ok."""
        book = LedgerReader(self.directory / ledger.NAME, SIGNER.keys(), head)
        assert not book.problems
        (verdict,) = Verifier(SIGNER.keys(), (), self.now).directory(book, self.directory, {sid})
        return verdict


def cast(path: Path) -> tuple[Header, list[Event]]:
    """Read a whole cast with the strict reader."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    first, *rest = text.split(b"\n")[:-1]
    return Header.parse(first), [Event.parse(line) for line in rest]


def events(path: Path) -> list[tuple[str, str]]:
    """Return the codes and texts of a cast, without checkpoints."""
    return [(event.code, event.text) for event in cast(path)[1] if event.code != CHECKPOINT]


def output(path: Path) -> str:
    return "".join(text for code, text in events(path) if code == "o")
