"""The algorithm that a key is offered with, and signatures by that algorithm."""

from __future__ import annotations

import pytest

from conchrec.ssh.certificate import certificate_type, key_type_of
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.signers import Accepted, accepted_algorithm
from conchrec.ssh.wire import Reader
from tests.support.logins import KINDS, key, signer

ALL = frozenset({b"ssh-ed25519", b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa"})
CERT = b"-cert-v01@openssh.com"


@pytest.mark.parametrize(
    ("key_type", "accepted", "expected"),
    [
        (b"ssh-ed25519", ALL, b"ssh-ed25519"),
        (b"ssh-ed25519", None, b"ssh-ed25519"),
        # Some servers send an incomplete list.
        (b"ssh-ed25519", frozenset({b"ssh-rsa"}), b"ssh-ed25519"),
        (b"ssh-ed25519" + CERT, ALL, b"ssh-ed25519" + CERT),
        (b"sk-ssh-ed25519@openssh.com", ALL, b"sk-ssh-ed25519@openssh.com"),
        (b"ssh-rsa", ALL, b"rsa-sha2-512"),
        (b"ssh-rsa", None, b"rsa-sha2-512"),
        (b"ssh-rsa", frozenset({b"rsa-sha2-256", b"ssh-rsa"}), b"rsa-sha2-256"),
        (b"ssh-rsa", frozenset({b"ssh-rsa", b"ssh-ed25519"}), None),
        (b"ssh-rsa", frozenset({b""}), None),
        (b"ssh-rsa" + CERT, ALL, b"rsa-sha2-512" + CERT),
        (b"ssh-rsa" + CERT, None, b"rsa-sha2-512" + CERT),
        (b"ssh-rsa" + CERT, frozenset({b"rsa-sha2-256"}), b"rsa-sha2-256" + CERT),
        (b"ssh-rsa" + CERT, frozenset({b"ssh-rsa"}), None),
    ],
)
def test_chooses_algorithm_that_server_accepts(
    key_type: bytes, accepted: Accepted, expected: bytes | None
) -> None:
    assert accepted_algorithm(key_type, accepted) == expected


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_signs_with_offered_algorithm(kind: str, certified: bool) -> None:
    by = signer(kind, certified=certified)
    names = (b"rsa-sha2-512", b"rsa-sha2-256") if kind == "rsa" else (key_type_of(key(kind).public().blob()),)
    for name in names:
        algorithm = by.algorithm(frozenset({name}))
        assert algorithm == (certificate_type(name) if certified else name)
        made: list[bytes] = []
        by.sign(b"data", algorithm).addCallback(made.append)
        assert Reader(made[0]).string() == name
        assert verify_signature(algorithm, by.blob, b"data", made[0])
        assert not verify_signature(algorithm, by.blob, b"other data", made[0])
