"""Records and audits the files that are transferred in one session channel.

``Session`` owns one ``FileAudit``. It calls ``begin`` with the command that the target runs, then
``from_user`` and ``from_target`` with each piece of data, and ``end`` once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from conchrec.audit import events
from conchrec.errors import RecordingError
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.file_transfers import TransferAccount, recognise
from conchrec.recording.format.transfer_account import AccountLost, Files, TransferFact


class FileRecorder(Protocol):
    """The part of a session's recorder that a file audit needs (``SessionRecorder``)."""

    def marker(self, text: str) -> None:
        """Record something that is not on the screen."""

    def transfer(self, *, digest_only: bool) -> None:
        """Note that the session is a file transfer; with ``digest_only`` its data is not recorded."""

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        """Record these bytes and all that follow: the transfer cannot be followed."""


Recorder_co = TypeVar("Recorder_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal(Generic[Recorder_co]):
    """The functions by which the parts of a session record and audit facts.

    ``record`` calls its argument with the session's recorder, if there is one. It and ``emit``, which writes
    an audit event, raise the error that ends the session (``record: strict``). ``emit_quietly`` never raises.
    ``who`` returns the fields that each event of the session has.
    """

    record: Callable[[Callable[[Recorder_co], None]], None]
    emit: Callable[[events.AuditEvent], None]
    emit_quietly: Callable[[events.AuditEvent], None]
    who: Callable[[], events.Who]


class FileAudit:
    """The account of the files of one session channel. ``seconds`` is a monotonic clock."""

    __slots__ = (
        "_account", "_journal", "_seconds",
    )  # fmt: skip

    def __init__(self, journal: Journal[FileRecorder], seconds: Callable[[], float]) -> None:
        self._journal = journal
        self._seconds = seconds
        self._account: TransferAccount | None = None

    @property
    def files(self) -> Files | None:
        """The transferred files so far, for the manifest; None if the command is not a transfer."""
        return self._account.files() if self._account is not None else None

    def begin(self, kind: str, command: str) -> None:
        """Start an account for a command, in place of the previous one.

        ``kind`` is shell, exec or subsystem, ``command`` the command line or the subsystem's name.
        """
        transfer = recognise(kind, command)
        self._account = None
        if transfer is None:
            return
        self._account = account = TransferAccount(transfer, self._seconds)
        if account.reads:
            # A command may run another program than its name says, so the recording keeps its bytes, too.
            digest_only = kind == "subsystem"
            self._journal.record(lambda recorder: recorder.transfer(digest_only=digest_only))
        self._report(account, account.begin())

    def withdraw(self) -> None:
        """Cancel the account, because the target refused the command."""
        account, self._account = self._account, None
        if account is not None:
            self._report(account, account.end())
            self._journal.record(lambda recorder: recorder.keep_from_here(b"", b""))

    def from_user(self, data: bytes) -> None:
        """Account for bytes that are sent to the target."""
        if self._account is not None and (facts := self._account.from_user(data)):
            self._report(self._account, facts)

    def from_target(self, data: bytes) -> None:
        """Account for bytes that the target sent."""
        if self._account is not None and (facts := self._account.from_target(data)):
            self._report(self._account, facts)

    def end(self) -> None:
        """Report the transfers that were not completed. Never raises."""
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

    def _report(self, account: TransferAccount, facts: Sequence[TransferFact]) -> None:
        journal = self._journal
        for fact in facts:
            self._record(account, fact)
            journal.emit(_event(journal.who(), account, fact))

    def _record(self, account: TransferAccount, fact: TransferFact) -> None:
        """Write a marker into the recording; once the protocol cannot be followed, also the bytes."""
        text = _marker_text(account, fact)
        self._journal.record(lambda recorder: recorder.marker(text))
        if isinstance(fact, AccountLost):
            lost = fact
            self._journal.record(lambda recorder: recorder.keep_from_here(lost.from_user, lost.from_target))


def _marker_text(account: TransferAccount, fact: TransferFact) -> str:
    if isinstance(fact, AccountLost):
        return f"{account.by} cannot be followed any further: {fact.reason}"
    size = "" if fact.size is None else f"{fact.size} bytes"
    digest = f"sha256 {fact.sha256}" if fact.sha256 else fact.unhashed and f"no hash: {fact.unhashed}"
    words = (fact.operation, fact.path, fact.other, fact.name, fact.detail, size, digest, fact.result)
    return " ".join(filter(None, words))


def _event(who: events.Who, account: TransferAccount, fact: TransferFact) -> events.AuditEvent:
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
