"""OpenSSH key revocation lists (KRL, PROTOCOL.krl): encoder, parser and lookup. Pure values.

A list names certificates by their CA and serial number or key id, and plain keys by the key or its
fingerprint. Ranges of serial numbers stay ranges, whatever their size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import CERTIFICATE, key_type_of
from conchrec.ssh.certificate import decode as decode_certificate
from conchrec.ssh.wire import Reader, string, uint32, uint64
from conchrec.text import decode_text, quote

MAGIC = b"SSHKRL\n\0"
FORMAT = 1
#: Serial numbers have 64 bits. 0 means that a certificate has no serial number; a list cannot revoke it.
MAX_SERIAL = 2**64 - 1

_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_SERIAL_LIST, _SERIAL_RANGE, _SERIAL_BITMAP, _KEY_ID, _CERTIFICATES_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39
#: The maximum length of a bitmap, in bytes. Each bit may become a range, which needs a thousand times the
#: memory.
MAX_BITMAP = 64 * 1024


class InvalidKrl(RemoteViolation):
    """The data is not a KRL, or has a part that must be understood and is not."""

    default_code = ReasonCode.BAD_REVOCATION_LIST


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedCertificates:
    """Revoked certificates of one CA.

    ``authority`` is the wire blob of the CA's plain key; empty means any CA. ``serials`` are pairs of the
    first and the last serial number.
    """

    authority: bytes = b""
    serials: tuple[tuple[int, int], ...] = ()
    key_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Krl:
    """A revocation list.

    ``generated`` is in seconds since 1970. ``keys`` are wire blobs of plain keys; ``sha1`` and ``sha256``
    are digests of such blobs.
    """

    krl_version: int = 0
    generated: int = 0
    comment: str = ""
    certificates: tuple[RevokedCertificates, ...] = ()
    keys: frozenset[bytes] = frozenset()
    sha1: frozenset[bytes] = frozenset()
    sha256: frozenset[bytes] = frozenset()


def encode(krl: Krl) -> bytes:
    """Encode a list. Equal values give equal bytes."""
    parts = [MAGIC, uint32(FORMAT), uint64(krl.krl_version), uint64(krl.generated), uint64(0), string(b"")]
    parts.append(string(krl.comment.encode()))
    for revoked in krl.certificates:
        parts += _encode_section(_CERTIFICATES, b"".join(_encode_certificates(revoked)))
    for number, blobs in ((_KEYS, krl.keys), (_SHA1, krl.sha1), (_SHA256, krl.sha256)):
        if blobs:
            parts += _encode_section(number, b"".join(map(string, sorted(blobs))))
    return b"".join(parts)


def _encode_section(number: int, contents: bytes) -> tuple[bytes, bytes]:
    """Encode a section: ``byte number, string contents``."""
    return bytes((number,)), string(contents)


def _encode_certificates(revoked: RevokedCertificates) -> Iterator[bytes]:
    """Yield the parts of a certificates section: ``string authority, string reserved``, then sections."""
    yield string(revoked.authority)
    yield string(b"")
    single: list[int] = []
    for first, last in merge_ranges(revoked.serials):
        if last - first < 2:
            single += range(first, last + 1)
        else:
            yield from _encode_section(_SERIAL_RANGE, uint64(first) + uint64(last))
    if single:
        yield from _encode_section(_SERIAL_LIST, b"".join(map(uint64, single)))
    if revoked.key_ids:
        ids = (string(key_id.encode()) for key_id in sorted(set(revoked.key_ids)))
        yield from _encode_section(_KEY_ID, b"".join(ids))


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same numbers in as few ranges as possible, in order."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def decode(data: bytes) -> Krl:
    """Parse a list. Raises InvalidKrl, or another RemoteViolation if the data is truncated.

    ``8 bytes magic, uint32 format, uint64 version, uint64 time, uint64 flags, string reserved, string
    comment``, then sections.
    """
    r = Reader(data)
    if r.take(len(MAGIC)) != MAGIC:
        raise InvalidKrl("not a key revocation list (KRL)")
    if (version := r.uint32()) != FORMAT:
        raise InvalidKrl(f"unsupported KRL format version {version}")
    krl_version, generated = r.uint64(), r.uint64()
    r.uint64()
    r.string()
    comment = decode_text(r.string())
    certificates: list[RevokedCertificates] = []
    blobs: dict[int, set[bytes]] = {_KEYS: set(), _SHA1: set(), _SHA256: set()}
    while not r.at_end:
        number, contents = r.byte(), Reader(r.string())
        if number == _CERTIFICATES:
            certificates.append(_read_certificates(contents))
        elif number in blobs:
            blobs[number].update(_read_strings(contents))
        elif number == _EXTENSION:
            _skip_extension(contents)
        elif number != _SIGNATURE:
            raise InvalidKrl(f"unknown KRL section {number}")
    if any(len(digest) != 20 for digest in blobs[_SHA1]) or any(
        len(digest) != 32 for digest in blobs[_SHA256]
    ):
        raise InvalidKrl("a fingerprint in the KRL has the wrong length")
    return Krl(
        krl_version=krl_version,
        generated=generated,
        comment=comment,
        certificates=tuple(certificates),
        keys=frozenset(blobs[_KEYS]),
        sha1=frozenset(blobs[_SHA1]),
        sha256=frozenset(blobs[_SHA256]),
    )


def _read_strings(r: Reader) -> Iterator[bytes]:
    """Yield strings until the end."""
    while not r.at_end:
        yield r.string()


def _read_certificates(r: Reader) -> RevokedCertificates:
    """Parse a certificates section."""
    authority = r.string()
    r.string()
    serials: list[tuple[int, int]] = []
    key_ids: list[str] = []
    while not r.at_end:
        number, contents = r.byte(), Reader(r.string())
        if number == _SERIAL_LIST:
            while not contents.at_end:
                serial = contents.uint64()
                serials.append((serial, serial))
        elif number == _SERIAL_RANGE:
            serials.append((contents.uint64(), contents.uint64()))
            contents.end()
        elif number == _SERIAL_BITMAP:
            serials += _read_bitmap(contents)
        elif number == _KEY_ID:
            key_ids += [decode_text(key_id) for key_id in _read_strings(contents)]
        elif number == _CERTIFICATES_EXTENSION:
            _skip_extension(contents)
        else:
            raise InvalidKrl(f"unknown certificate section {number} in the KRL")
    if any(not 0 < first <= last for first, last in serials):
        raise InvalidKrl("invalid range of serial numbers in the KRL: must be 1 or more, in ascending order")
    return RevokedCertificates(
        authority=authority, serials=tuple(merge_ranges(serials)), key_ids=tuple(key_ids)
    )


def _read_bitmap(r: Reader) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ``uint64 offset, mpint bitmap``: bit n stands for offset + n."""
    offset, bits = r.uint64(), r.string()
    r.end()
    if len(bits) > MAX_BITMAP or offset + 8 * len(bits) > MAX_SERIAL:
        raise InvalidKrl("a bitmap of serial numbers in the KRL is too long")
    for run in re.finditer("1+", f"{int.from_bytes(bits, 'big'):b}"[::-1]):
        yield offset + run.start(), offset + run.end() - 1


def _skip_extension(r: Reader) -> None:
    """Skip an extension: ``string name, boolean critical, string contents``.

    Raises InvalidKrl if the extension is critical.
    """
    name, critical = r.string(), r.boolean()
    if critical:
        raise InvalidKrl(f"unknown critical extension {quote(name, 64)} in the KRL")


def revokes(krl: Krl, blob: bytes) -> bool:
    """Return whether a plain key or certificate (a wire blob) is revoked.

    As in sshd, a certificate is also revoked if its key or the key of its CA is. Raises RemoteViolation for
    a malformed blob.
    """
    if not key_type_of(blob).endswith(CERTIFICATE):
        return _revokes_key(krl, blob)
    certificate = decode_certificate(blob)
    if _revokes_key(krl, certificate.public_key) or _revokes_key(krl, certificate.authority):
        return True
    return any(
        certificate.key_id in revoked.key_ids
        or any(first <= certificate.serial <= last for first, last in revoked.serials)
        for revoked in krl.certificates
        if revoked.authority in (b"", certificate.authority)
    )


def _revokes_key(krl: Krl, blob: bytes) -> bool:
    """Return whether the list names a plain key, or its fingerprint."""
    return (
        blob in krl.keys
        or hashlib.sha1(blob, usedforsecurity=False).digest() in krl.sha1
        or hashlib.sha256(blob).digest() in krl.sha256
    )
