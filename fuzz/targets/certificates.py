"""Certificates, keys, signatures and key exchange values of strangers: nothing is believed that was touched,
and nothing is raised but a refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from conchrec.errors import CertificateRejected, HostKeyRejected, RemoteViolation
from conchrec.model import Target as Place
from conchrec.ssh.certificate import decode, fingerprint
from conchrec.ssh.certificate_checks import check_host, check_user
from conchrec.ssh.host_key_check import HostTrust
from conchrec.ssh.kex_methods import is_usable, new_kex_method
from conchrec.ssh.known_hosts import KnownHosts
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.signers import accepted_algorithm
from conchrec.ssh.wire import Reader, string
from fuzz.corpus import certificates, signatures
from fuzz.limits import Broken
from fuzz.target import Each, Target, chosen
from tests.support.powers import Run, SameKeyPair, at_once, result_of

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
CERTIFICATES = certificates()
SIGNATURES = signatures()
AUTHORITIES = frozenset(decode(blob).authority for blob in CERTIFICATES)
SIGNED = frozenset(decode(blob).signed for blob in CERTIFICATES)
#: What was signed, by whom.
GOOD = frozenset((r.string(), r.string(), r.string()) for r in map(Reader, SIGNATURES))
TRUST = HostTrust(KnownHosts(()), authorities=tuple(AUTHORITIES))
EXCHANGES = tuple(
    name
    for name in (
        *(b"curve25519-sha256", b"ecdh-sha2-nistp256", b"ecdh-sha2-nistp521", b"mlkem768x25519-sha256"),
        b"sntrup761x25519-sha512",
    )
    if is_usable(name)
)


def _certificate(data: bytes) -> None:
    certificate = decode(data)
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_user(certificate, authorities=AUTHORITIES, now=NOW, source="127.0.0.1"),
        lambda: check_host(certificate, authorities=AUTHORITIES, name="web1", now=NOW),
    )
    for check in checks:
        try:
            check()
        except CertificateRejected:
            continue
        if certificate.signed not in SIGNED:
            raise Broken("a certificate that nobody signed was accepted")
    if not certificate.valid_until_text:
        raise Broken("it ends at no time")


def _host_key(data: bytes) -> None:
    try:
        TRUST.verify(Place(host="web1", port=22), data, NOW)
    except HostKeyRejected as error:
        if "\x1b" in error.public or "\n" in error.public:
            raise Broken(f"it tells a terminal what to do: {error.public!r}") from error
        return
    if decode(data).signed not in SIGNED:
        raise Broken("a host key that nobody vouches for was accepted")


def _signature(data: bytes) -> None:
    """``string algorithm, string blob, string data, string signature``"""
    r = Reader(data)
    algorithm, blob, signed, signature = r.string(), r.string(), r.string(), r.string()
    try:
        good = verify_signature(algorithm, blob, signed, signature)
    except RemoteViolation as error:
        raise Broken("it never raises, it says") from error
    # A certificate is as good for this as the key in it: who vouches for that is asked elsewhere.
    if good and signed not in {data for _, _, data in GOOD}:
        raise Broken("a signature over something else was accepted")


def _fingerprint(data: bytes) -> None:
    if len(fingerprint(data)) != len("SHA256:") + 43:
        raise Broken("that is no fingerprint")
    accepted_algorithm(data[:64], frozenset({b"rsa-sha2-512"}))


def _value(data: bytes) -> None:
    """A public value, for the method that the first byte names."""
    if not data:
        return
    name = EXCHANGES[data[0] % len(EXCHANGES)]
    _, secret = Run(name).accept(data[1:])
    Reader(secret).string()


def _answer(data: bytes) -> None:
    """A server's value, for the client of the method that the first byte names."""
    if not data:
        return
    name = EXCHANGES[data[0] % len(EXCHANGES)]
    client = new_kex_method(name, at_once, SameKeyPair())
    result_of(client.offer())
    Reader(result_of(client.complete(data[1:]))).string()


def _corpus() -> list[bytes]:
    # As long as they have to be, and the same each time.
    sizes = [len(Run(name).offer()) for name in EXCHANGES]
    values = [bytes((number, 4)) + bytes(size - 2) + b"\x09" for number, size in enumerate(sizes)]
    sizes = [len(Run(name).accept(Run(name).offer())[0]) for name in EXCHANGES]
    answers = [bytes((number, 4)) + bytes(size - 2) + b"\x09" for number, size in enumerate(sizes)]
    plain = string(b"ssh-ed25519") + string(bytes(32))
    groups = (CERTIFICATES, [CERTIFICATES[3], plain], SIGNATURES, [*CERTIFICATES, plain], values, answers)
    return [bytes((number,)) + entry for number, group in enumerate(groups) for entry in group]


TARGET = Target(
    name="certificates",
    about="certificates, host keys, signatures, key exchange values: ssh/certificate.py, host_key_check.py",
    corpus=_corpus,
    begin=lambda: Each(
        chosen((_certificate, _host_key, _signature, _fingerprint, _value, _answer)), (RemoteViolation,)
    ),
)
