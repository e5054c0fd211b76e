"""Key revocation lists of strangers: what is read is what is asked, and nothing is raised but a refusal."""

from __future__ import annotations

from conchrec.errors import RemoteViolation
from conchrec.ssh.certificate import decode as certificate
from conchrec.ssh.krl import Krl, RevokedCertificates, decode, encode, revokes
from fuzz.corpus import certificates
from fuzz.limits import Broken
from fuzz.target import Each, Target

CERTIFICATES = certificates()


def _krl(data: bytes) -> None:
    krl = decode(data)
    again = decode(encode(krl))
    for blob in CERTIFICATES:
        for key in (blob, certificate(blob).public_key):
            if revokes(krl, key) is not revokes(again, key):
                raise Broken("what is written is not what was read")


def _corpus() -> list[bytes]:
    first = certificate(CERTIFICATES[0])
    certified = RevokedCertificates(
        authority=first.authority, serials=((1, 1), (5, 9), (20, 20)), key_ids=(first.key_id, "joe")
    )
    whole = Krl(
        krl_version=3,
        generated=1_764_000_000,
        comment="fuzz",
        certificates=(certified, RevokedCertificates(serials=((first.serial, 2**40),))),
        keys=frozenset({first.public_key}),
        sha1=frozenset({bytes(20)}),
        sha256=frozenset({bytes(32)}),
    )
    # A bitmap, which others write: serials 64, 66 and 71, of any authority.
    bitmap = bytes.fromhex("22000000 0e 0000000000000040 00000002 0085".replace(" ", ""))
    section = bytes(8) + bitmap
    with_bitmap = encode(Krl()) + b"\1" + len(section).to_bytes(4, "big") + section
    return [encode(Krl()), encode(whole), with_bitmap]


TARGET = Target(
    name="revocations",
    about="conchrec/ssh/krl.py: lists of what is revoked",
    corpus=_corpus,
    begin=lambda: Each(_krl, (RemoteViolation,)),
)
