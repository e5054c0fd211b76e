"""Signed recordings that somebody has touched: what is not the very thing that was signed is never whole."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conchrec.errors import RecordingError
from conchrec.recording.evidence.ledger import LedgerAction, LedgerLine
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.format.signatures import NotSigned, RecordingSigner, is_checkpoint
from conchrec.recording.storage.encodings import ZstdFrames, open_recording
from fuzz.limits import Broken
from fuzz.scratch import scratch
from fuzz.target import Each, Target, chosen

SIGNER = RecordingSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEYS = SIGNER.keys()
SID = "06c3r5am1g029b1e26sq1pb30s"
CHECKPOINT = SIGNER.checkpoint(SID, 1234, "ab" * 32).encode()
MANIFEST = SIGNER.manifest(
    b'{\n "version": 1,\n "sid": "06c3r5am1g029b1e26sq1pb30s",\n "status": "complete",\n "reason": "",\n'
    b' "started": "2026-01-01T00:00:00Z",\n "ended": "2026-01-01T00:00:01Z",\n'
    b' "cast": {\n  "name": "s.cast",\n  "size": 1,\n  "sha256": "00"\n }\n}\n'
)
ENTRY = SIGNER.entry(
    LedgerLine(
        number=7,
        previous="0" * 64,
        time="2026-01-01T00:00:00.000Z",
        act=LedgerAction.SEALED,
        sid=SID,
        manifest="cd" * 32,
    ).encode()
)
LINES = (
    b'{"version":2,"width":80,"height":24}\n',
    *(b'[%d.0, "o", "line"]\n' % number for number in range(40)),
)


def _packed() -> bytes:
    packer = ZstdFrames()
    return b"".join((packer.compress(LINES[:20]), packer.cut(), packer.compress(LINES[20:]), packer.cut()))


def _checkpoint(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        point = KEYS.checkpoint(SID, text)
    except NotSigned:
        if data == CHECKPOINT:
            raise Broken("what was signed is refused") from None
        return
    if data != CHECKPOINT:
        raise Broken(f"taken: {point}")


def _manifest(data: bytes) -> None:
    try:
        KEYS.manifest(data)
    except NotSigned:
        return
    if data != MANIFEST:
        raise Broken("another manifest is taken")
    Manifest.parse(data)


def _entry(data: bytes) -> None:
    try:
        line = LedgerLine.parse(data)
        KEYS.entry(data)
    except RecordingError:
        return
    if data != ENTRY:
        raise Broken(f"taken: {line}")


def _unpacked(data: bytes) -> None:
    """No more than was there before: what is read of a broken one is a part of something, or refused."""
    path = scratch("one.cast.zst")
    path.write_bytes(data)
    size = 0
    try:
        with open_recording(path) as plain:
            for line in plain:
                is_checkpoint(line)
                size += len(line)
                if size > 1 << 24:
                    break
    except RecordingError:
        pass


def _corpus() -> list[bytes]:
    inputs = (CHECKPOINT, MANIFEST, ENTRY, _packed())
    return [bytes((number,)) + entry for number, entry in enumerate(inputs)]


TARGET = Target(
    name="evidence",
    about="signatures, the ledger and packed casts: format/signatures.py, ledger_line.py, encodings.py",
    corpus=_corpus,
    begin=lambda: Each(chosen((_checkpoint, _manifest, _entry, _unpacked))),
)
