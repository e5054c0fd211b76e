"""The last steps of a recording: packed or encrypted as configured, a signed manifest, a line in the ledger.

The one place where recordings are completed: by the store at their end, and by the recovery of what an
earlier process left behind. All of it blocks, but ``opened`` and ``checkpoint``.
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
from conchrec.recording.evidence.ledger import AT_ONCE, Ledger, LedgerAction
from conchrec.recording.format.manifest import Manifest, Stored
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys
from conchrec.recording.storage import encodings, spool
from conchrec.recording.storage.layout import MANIFEST, SEALED_AWAY, RecordingTree
from conchrec.recording.storage.recipients import recipient

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What was put there, and the ledger's head with it."""

    manifest: Manifest
    head: str


class Finisher:
    """Completes recordings below one directory. ``keys`` may have signed what is found there;
    ``recipients`` (their texts: ``age1…`` or an SSH public key) are those who may read: nobody else, then.
    ``heads`` keeps the ledger's last head; ``on_break`` hears that somebody else has changed the ledger, in
    the thread that noticed it: the ledger states that, and recording goes on.
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
        on_break: Callable[[Break], None] = lambda found: None,
    ) -> None:
        self.tree = tree
        self.keys = keys or signer.keys()
        self.ledger = Ledger(tree.root, signer, now, keys=self.keys, heads=heads, on_break=on_break)
        self._signer = signer
        self._recipients = tuple(recipients)

    def opened(self, sid: str) -> str:
        """A recording begins: the ledger's head. Raises RecordingError."""
        try:
            return self.ledger.append(LedgerAction.OPEN, sid, patience=AT_ONCE)
        except OSError as error:
            raise spool.failure(error) from error

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """The text of a checkpoint."""
        return self._signer.checkpoint(sid, size, sha256)

    def seal(self, manifest: Manifest, *, durable: bool = True) -> Sealed:
        """The recording is complete, and on the disk where ``durable``. Raises OSError or RecordingError.

        One that cannot be encrypted is sealed as it is, with a manifest that says so, and an error.
        """
        sid = manifest.sid
        path = self.tree.path(sid)
        plain = path.name
        failed: OSError | None = None
        with self.tree.day(sid) as day:
            stored: Stored | None = None
            if self._recipients:
                try:
                    stored = self._encrypt(plain, day, durable=durable)
                    # What was on the screen is for the recipients alone: the commands are markers in there.
                    manifest = replace(
                        manifest,
                        stored=stored,
                        encrypted=self._recipients,
                        commands=(),
                        commands_left_out=manifest.commands_left_out + len(manifest.commands),
                    )
                except OSError as error:
                    failed = error
                    why = error.strerror or "input/output error"
                    manifest = replace(manifest, reason=f"{manifest.reason}; not encrypted: {why}")
            if stored is None and encodings.is_packed(path):
                with _open(plain, day) as file:
                    manifest = replace(manifest, stored=_digest(file, plain))
            document = self._signer.manifest(manifest.encode())
            self.tree.place(sid + MANIFEST, sid, document, durable=durable)
            head = self.enter(sid, document, durable=durable)
            if stored is not None:
                os.unlink(plain, dir_fd=day)
        if failed is not None:
            raise failed
        return Sealed(manifest=manifest, head=head)

    def enter(self, sid: str, document: bytes, *, durable: bool = True) -> str:
        """The manifest with this text goes into the ledger, once; the new head.

        The head is audited, so the ledger is on the disk before that, whatever ``recordings.fsync`` says of
        the recordings: after a power cut it would look as if it had been cut. Without ``durable`` (the disk
        has failed already) that is only tried.
        """
        head = self.ledger.append(LedgerAction.SEALED, sid, manifest=hashlib.sha256(document).hexdigest())
        try:
            self.ledger.sync()
        except OSError:
            if durable:
                raise
        return head

    def _encrypt(self, plain: str, day: int, *, durable: bool) -> Stored:
        name = plain + SEALED_AWAY
        recipients = [recipient(text) for text in self._recipients]
        with _open(plain, day) as source, NewFile(name, dir_fd=day) as new:
            hashed = _Hashed(new.file)
            encodings.encrypt(source, hashed, recipients)
            new.commit(durable=durable)
        return Stored(name=name, size=hashed.size, sha256=hashed.digest.hexdigest())


class _Hashed:
    """A file to write to, as ``pyrage`` wants one, that knows what it was given."""

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
