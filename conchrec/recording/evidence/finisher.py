"""Completes recordings: compressed or encrypted as configured, a signed manifest, and a line in the ledger.

Used by the store at the end of a session, and by the recovery for the recordings of an earlier process. All
of it blocks, except ``begin`` and ``checkpoint``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO

from conchrec.files import NewFile, open_regular
from conchrec.recording.evidence.continuity import Break
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.evidence.ledger import REACTOR_PATIENCE, Ledger, LedgerAction
from conchrec.recording.format.manifest import Manifest, Stored
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys
from conchrec.recording.storage import encodings, spool
from conchrec.recording.storage.layout import ENCRYPTED, MANIFEST, RecordingTree
from conchrec.recording.storage.recipients import parse_recipient

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The manifest that was written, and the head of the ledger with its line."""

    manifest: Manifest
    head: str


class Finisher:
    """Completes recordings below one directory.

    ``keys`` are trusted to have signed what exists there. ``recipients`` (``age1…``, or an SSH public key)
    are the only ones who can read the recordings; without recipients nothing is encrypted. ``heads`` saves
    the last head of the ledger. ``on_break`` is called when somebody else has changed the ledger, in the
    thread that noticed it; the ledger states this, and recording continues.
    """

    def __init__(
        self,
        tree: RecordingTree,
        signer: RecordingSigner,
        now: Callable[[], datetime],
        *,
        keys: TrustedKeys | None = None,
        recipients: Sequence[str] = (),
        heads: HeadFile | None = None,
        on_break: Callable[[Break], None] = lambda broken: None,
    ) -> None:
        self.tree = tree
        self.keys = keys or signer.keys()
        self.ledger = Ledger(tree.root, signer, now, keys=self.keys, heads=heads, on_break=on_break)
        self._signer = signer
        self._recipients = tuple(recipients)

    def begin(self, sid: str) -> str:
        """Add the line of a new recording to the ledger. Returns the head. Raises RecordingError."""
        try:
            return self.ledger.append(LedgerAction.OPEN, sid, patience=REACTOR_PATIENCE)
        except OSError as error:
            raise spool.recording_error(error) from error

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Return the text of a checkpoint."""
        return self._signer.checkpoint(sid, size, sha256)

    def seal(self, manifest: Manifest, *, durable: bool = True) -> Sealed:
        """Complete the recording; it is on the disk afterwards where ``durable``. Raises OSError or
        RecordingError.

        A recording that cannot be encrypted is completed without encryption. Its manifest says so, and the
        error is raised.
        """
        sid = manifest.sid
        path = self.tree.path(sid)
        plain = path.name
        failure: OSError | None = None
        with self.tree.open_day(sid) as day:
            stored: Stored | None = None
            if self._recipients:
                try:
                    stored = self._encrypt(plain, day, durable=durable)
                    # Only the recipients may read what was on the screen. The commands are markers in the
                    # cast.
                    manifest = replace(
                        manifest,
                        stored=stored,
                        encrypted=self._recipients,
                        commands=(),
                        commands_left_out=manifest.commands_left_out + len(manifest.commands),
                    )
                except OSError as error:
                    failure = error
                    reason = error.strerror or "input/output error"
                    manifest = replace(manifest, reason=f"{manifest.reason}; not encrypted: {reason}")
            if stored is None and encodings.is_compressed(path):
                with _open(plain, day) as file:
                    manifest = replace(manifest, stored=_digest(file, plain))
            document = self._signer.manifest(manifest.encode())
            with NewFile(sid + MANIFEST, dir_fd=day) as new:
                new.file.write(document)
                new.commit(durable=durable)
            if durable:
                self.tree.sync(sid)
            head = self.add_to_ledger(sid, document, durable=durable)
            if stored is not None:
                os.unlink(plain, dir_fd=day)
        if failure is not None:
            raise failure
        return Sealed(manifest=manifest, head=head)

    def add_to_ledger(self, sid: str, document: bytes, *, durable: bool = True) -> str:
        """Add the line for this manifest to the ledger, once. Returns the head.

        The head is audited next, so the ledger is synced to the disk first, with any value of
        ``recordings.fsync``. Else it would look cut after a power failure. Without ``durable`` (the disk has
        failed already) the sync may fail.
        """
        head = self.ledger.append(LedgerAction.SEALED, sid, manifest=hashlib.sha256(document).hexdigest())
        try:
            self.ledger.sync()
        except OSError:
            if durable:
                raise
        return head

    def _encrypt(self, plain: str, day: int, *, durable: bool) -> Stored:
        name = plain + ENCRYPTED
        recipients = [parse_recipient(text) for text in self._recipients]
        with _open(plain, day) as source, NewFile(name, dir_fd=day) as new:
            hashed = _HashedFile(new.file)
            encodings.encrypt(source, hashed, recipients)
            new.commit(durable=durable)
        return Stored(name=name, size=hashed.size, sha256=hashed.digest.hexdigest())


class _HashedFile:
    """A file to write to, in the form that ``pyrage`` needs, with the size and the digest of its contents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _open(name: str, day: int) -> BinaryIO:
    return open(open_regular(name, dir_fd=day), "rb")


def _digest(file: BinaryIO, name: str) -> Stored:
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return Stored(name=name, size=size, sha256=digest.hexdigest())
