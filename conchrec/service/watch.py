"""Watches the ledger of recordings while the service runs, and reports changes by other programs."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.audit.events import AuditEvent, EvidenceTampered
from conchrec.errors import RecordingError
from conchrec.recording.evidence.continuity import Break
from conchrec.recording.evidence.ledger import Ledger
from conchrec.threads import InThread

_log = Logger()

SECONDS = 1.0
"""The interval at which the ledger is checked and its head is stored."""


class LedgerWatch:
    """Checks the ledger; the service calls it once a second. ``emit`` accepts audit events in the reactor."""

    def __init__(self, ledger: Ledger, in_thread: InThread, emit: Callable[[AuditEvent], None]) -> None:
        self._ledger = ledger
        self._in_thread = in_thread
        self._emit = emit
        self._problem = ""

    def check(self) -> Deferred[None]:
        """Check the end of the ledger and some of its lines, and store its head. Never fails."""
        return self._in_thread(self._check).addCallbacks(self._succeeded, self._failed)

    def _check(self) -> None:
        """The work of ``check``. Runs in a thread."""
        self._ledger.refresh()
        self._ledger.check_step()
        self._ledger.save_head()

    def _succeeded(self, _: None) -> None:
        self._problem = ""

    def _failed(self, failure: Failure) -> None:
        """A problem that lasts is logged once."""
        error = failure.value
        if self._problem == repr(error):
            return
        self._problem = repr(error)
        if isinstance(error, (RecordingError, OSError)):
            _log.error("the ledger of recordings cannot be checked: {why}", why=str(error))
        else:
            _log.failure("cannot check the ledger of recordings", failure=failure)

    def report(self, tampering: Break) -> None:
        """Log and audit that the ledger was changed. Called in the reactor."""
        path = str(self._ledger.path)
        _log.error(
            "EVIDENCE WAS TAMPERED WITH: {path} does not continue its head {expected}: {reason}. See "
            "docs/recordings.md",
            path=path,
            expected=tampering.expected,
            reason=tampering.reason,
        )
        event = EvidenceTampered(
            ledger=path,
            reason=tampering.reason,
            expected=tampering.expected,
            found=tampering.continued_from,
            head=tampering.head,
        )
        self._emit(event)
