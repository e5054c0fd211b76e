"""The host keys that our servers offer."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ssh.certificate import CertificateKind, issue
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.wire import string
from tests.support.logins import authority


def test_offers_certificate_and_plain_key() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    blob = string(b"ssh-ed25519") + string(private.public_key().public_bytes_raw())
    certified = issue(
        authority=authority(),
        public_key=blob,
        kind=CertificateKind.HOST,
        serial=1,
        key_id="web1 node",
        principals=("web1",),
        valid_after=0,
        valid_before=2**64 - 1,
    ).blob
    shown = ServerHostKeys(private, certified)
    assert shown.algorithms == (b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519")
    assert shown.get(b"ssh-ed25519-cert-v01@openssh.com").blob() == certified
    assert shown.get(b"ssh-ed25519").blob() == blob
    with pytest.raises(KeyError):
        shown.get(b"ssh-rsa")
    signature = shown.get(b"ssh-ed25519-cert-v01@openssh.com").sign(b"data")
    assert signature[:19] == string(b"ssh-ed25519") + b"\0\0\0\x40"
    private.public_key().verify(signature[19:], b"data")
    assert ServerHostKeys(private, None).algorithms == (b"ssh-ed25519",)
