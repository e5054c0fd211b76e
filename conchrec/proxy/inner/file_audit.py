"""The file account of one session channel: what is transferred goes to its recording and to the audit.

``Session`` owns one ``FileAudit``. It calls ``begin`` with what the target runs, then ``from_user`` and
``from_target`` with each piece of data that passes, and ``end`` once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from conchrec.audit import events
from conchrec.errors import RecordingError
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.file_transfers import Account, recognise
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.transfer_account import AccountLost, Files, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """Where the facts of a session go, as functions of its ``Session``.

    ``record`` calls what it is given with the session's recorder, if there is one. It and ``emit``, which
    writes an event to the audit, raise what ends the session (``record: strict``). ``emit_quietly`` never
    raises. ``who`` makes the fields that every event of the session has.
    """

    record: Callable[[Callable[[SessionRecorder], None]], None]
    emit: Callable[[events.AuditEvent], None]
    emit_quietly: Callable[[events.AuditEvent], None]
    who: Callable[[], events.Who]


class FileAudit:
    """Accounts for the files of one session channel. ``seconds`` is a monotonic clock."""

    def __init__(self, journal: Journal, seconds: Callable[[], float]) -> None:
        self._journal = journal
        self._seconds = seconds
        self._account: Account | None = None

    @property
    def files(self) -> Files | None:
        """What was transferred so far, for the manifest; None where no transfer was recognised."""
        return self._account.files() if self._account is not None else None

    def begin(self, kind: str, command: str) -> None:
        """The target runs this: ``kind`` is shell, exec or subsystem, ``command`` the command line or the
        subsystem's name. It replaces what was begun before."""
        transfer = recognise(kind, command)
        self._account = None
        if transfer is None:
            return
        self._account = account = Account(transfer, self._seconds)
        if account.reads:
            # Anybody may choose a command, so that what runs may be another program: it is kept, too.
            digest_only = kind == "subsystem"
            self._journal.record(lambda recorder: recorder.transfer(digest_only=digest_only))
        self._report(account, account.begin())

    def withdraw(self) -> None:
        """The target has refused what was begun: there is no transfer."""
        account, self._account = self._account, None
        if account is not None:
            self._report(account, account.end())
            self._journal.record(lambda recorder: recorder.keep_from_here(b"", b""))

    def from_user(self, data: bytes) -> None:
        """Bytes that go to the target."""
        if self._account is not None and (found := self._account.from_user(data)):
            self._report(self._account, found)

    def from_target(self, data: bytes) -> None:
        """Bytes that come from the target."""
        if self._account is not None and (found := self._account.from_target(data)):
            self._report(self._account, found)

    def end(self) -> None:
        """No more bytes: report what was not completed. Never raises."""
        account, journal = self._account, self._journal
        if account is None:
            return
        for fact in account.end():
            with suppress(RecordingError):
                self._record(account, fact)
            journal.emit_quietly(_event(journal.who(), account, fact))
        if not account.reads:
            files = account.files()
            journal.emit_quietly(
                events.Transfer(**journal.who(), program=files.by, sent=files.sent, received=files.received)
            )

    def _report(self, account: Account, found: Sequence[Found]) -> None:
        journal = self._journal
        for fact in found:
            self._record(account, fact)
            journal.emit(_event(journal.who(), account, fact))

    def _record(self, account: Account, fact: Found) -> None:
        """In the recording: a marker, and from where the protocol is lost on the bytes themselves."""
        text = _marker_text(account, fact)
        self._journal.record(lambda recorder: recorder.marker(text))
        if isinstance(fact, AccountLost):
            lost = fact
            self._journal.record(lambda recorder: recorder.keep_from_here(lost.from_user, lost.from_target))


def _marker_text(account: Account, fact: Found) -> str:
    if isinstance(fact, AccountLost):
        return f"{account.by} cannot be followed any further: {fact.reason}"
    size = "" if fact.size is None else f"{fact.size} bytes"
    digest = f"sha256 {fact.sha256}" if fact.sha256 else fact.unhashed and f"no hash: {fact.unhashed}"
    words = (fact.operation, fact.path, fact.other, fact.name, fact.detail, size, digest, fact.result)
    return " ".join(filter(None, words))


def _event(who: events.Who, account: Account, fact: Found) -> events.AuditEvent:
    if isinstance(fact, AccountLost):
        return events.TransferLost(
            **who,
            program=account.by,
            reason=Reason(ReasonCode.TRANSFER_NOT_FOLLOWED, fact.reason),
        )
    kind = events.Scp if account.by == "scp" else events.Sftp
    return kind(
        **who,
        operation=fact.operation,
        path=fact.path,
        other=fact.other,
        name=fact.name,
        detail=fact.detail,
        size=fact.size,
        sha256=fact.sha256,
        unhashed=fact.unhashed,
        result=fact.result,
        duration=round(fact.duration, 3),
    )
