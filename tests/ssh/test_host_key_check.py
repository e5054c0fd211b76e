"""Which host keys are trusted and why, and the errors for rejected ones."""

from __future__ import annotations

import base64
import os
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec.errors import HostKeyRejected
from conchrec.model import Target
from conchrec.ssh.certificate import CERTIFICATE, CertificateKind, CertificateSigner, fingerprint, issue
from conchrec.ssh.host_key_check import CERTIFIED, PLAIN, AcceptedHostKey, HostTrust
from conchrec.ssh.known_hosts import KnownHosts
from conchrec.ssh.wire import string
from tests.support.logins import authority, key
from tests.support.process import environment, program

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
CA, STRANGER = authority(), authority(1)
WEB1 = Target(host="web1")
PORT = Target(host="web1", port=2222)
ED: bytes = key("ed25519").public().blob()
OTHER: bytes = key("ed25519", 1).public().blob()
RSA: bytes = key("rsa").public().blob()
ECDSA: bytes = key("ecdsa256").public().blob()


def line(names: str, blob: bytes, marker: str = "") -> str:
    kind = blob[4 : 4 + blob[3]].decode()
    return f"{marker + ' ' if marker else ''}{names} {kind} {base64.b64encode(blob).decode()} a comment\n"


def certificate(
    *names: str,
    key_blob: bytes = ED,
    by: CertificateSigner = CA,
    kind: CertificateKind = CertificateKind.HOST,
    days: int = 1,
) -> bytes:
    return issue(
        authority=by,
        public_key=key_blob,
        kind=kind,
        serial=1,
        key_id="web1 node",
        principals=names or ("web1",),
        valid_after=int((NOW - DAY * 9).timestamp()),
        valid_before=int((NOW + DAY * days).timestamp()),
    ).blob


class Trust:
    """A known_hosts file and the HostTrust that reads it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "known_hosts"

    def with_lines(self, *lines: str, check: bool = True, authorities: tuple[bytes, ...] = ()) -> HostTrust:
        self.file.write_text("".join(lines))
        return HostTrust(KnownHosts.load([self.file]), authorities=authorities, check=check)


@pytest.fixture
def known(tmp_path: Path) -> Trust:
    return Trust(tmp_path)


def accepted(trust: HostTrust, blob: bytes, target: Target = WEB1) -> AcceptedHostKey:
    return trust.verify(target, blob, NOW)


def refused(trust: HostTrust, blob: bytes, target: Target = WEB1) -> str:
    with pytest.raises(HostKeyRejected) as caught:
        trust.verify(target, blob, NOW)
    return caught.value.public


# --- plain keys


def test_accepts_key_in_known_hosts(known: Trust) -> None:
    trust = known.with_lines("# mine\n", "\n", line("web2", OTHER), line("web1,192.0.2.1", ED))
    verdict = accepted(trust, ED)
    assert verdict.trust == f"known_hosts {known.file}:4"
    assert verdict.fingerprint == fingerprint(ED)
    assert (verdict.algorithm, verdict.checked) == ("ssh-ed25519", True)
    assert accepted(trust, ED, Target(host="192.0.2.1")).checked


def test_accepts_any_known_key_of_host(known: Trust) -> None:
    trust = known.with_lines(line("web1", RSA), line("web1", ED), line("web1", OTHER))
    for blob in (RSA, ED, OTHER):
        assert accepted(trust, blob).checked
    assert "has changed" in refused(trust, ECDSA)


def test_rejects_changed_key(known: Trust) -> None:
    trust = known.with_lines(line("web1", RSA), line("web1", ED))
    assert refused(trust, OTHER) == (
        f"the host key of web1:22 has changed: it presented {fingerprint(OTHER)}, but {known.file}:2 has"
        f" {fingerprint(ED)}. Somebody may be intercepting the connection. If the key was replaced"
        " on purpose, ask your administrator to correct that line"
    )


def test_rejects_key_of_another_type_as_changed(known: Trust) -> None:
    """Otherwise an attacker would only have to present a key of a new type."""
    assert "has changed" in refused(known.with_lines(line("web1", RSA)), ED)


def test_rejects_unknown_key(known: Trust) -> None:
    trust = known.with_lines(line("web2", ED))
    assert refused(trust, ED) == (
        "web1:22 presented a public key, expected a host certificate (ssh: handshake failed: remote host"
        " presented a public key, expected a host certificate). Ask your administrator to sign its host key"
        f" (ED25519 {fingerprint(ED)}) or to add it to known_hosts. To sign it:"
        " conchrec ca sign-host --host web1"
    )


def test_matches_port_as_part_of_name(known: Trust) -> None:
    trust = known.with_lines(line("web1", ED), line("[web1]:2222", OTHER))
    assert accepted(trust, OTHER, PORT).checked
    assert "has changed" in refused(trust, ED, PORT)
    assert "has changed" in refused(trust, OTHER, WEB1)
    assert "expected a host certificate" in refused(trust, ED, Target(host="web1", port=2223))


@pytest.mark.parametrize(
    ("patterns", "target", "matches"),
    [
        ("web*", WEB1, True),
        ("WEB1", WEB1, True),
        ("web?", WEB1, True),
        ("web??", WEB1, False),
        ("web1", Target(host="web10"), False),
        ("*,!web1", WEB1, False),
        ("!web1,*", WEB1, False),
        ("*,!web2", WEB1, True),
        ("!web2", WEB1, False),
        ("[web1]:2222", PORT, True),
        ("[web?]:22*", PORT, True),
        ("[web1]:*", PORT, True),
        ("[web1]", WEB1, False),
        ("w[e]b1", WEB1, False),
        ("2001:db8::1", Target(host="2001:db8::1"), True),
        ("[2001:db8::1]:2222", Target(host="2001:db8::1", port=2222), True),
    ],
)
def test_matches_patterns(known: Trust, patterns: str, target: Target, matches: bool) -> None:
    trust = known.with_lines(line(patterns, ED))
    if matches:
        assert accepted(trust, ED, target).checked
    else:
        assert "expected a host certificate" in refused(trust, ED, target)


def test_matches_names_hashed_by_ssh_keygen(known: Trust) -> None:
    known.file.write_text(line("web1,web3", ED) + line("[web1]:2222", OTHER))
    subprocess.run(
        (program("ssh-keygen"), "-q", "-H", "-f", str(known.file)),
        env=environment(), check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    text = known.file.read_text()
    assert "web" not in text
    assert text.startswith("|1|")
    trust = known.with_lines(text)
    assert accepted(trust, ED).checked
    assert accepted(trust, ED, Target(host="web3")).checked
    assert accepted(trust, OTHER, PORT).checked
    assert "expected a host certificate" in refused(trust, ED, Target(host="web2"))


def test_skips_invalid_lines(known: Trust) -> None:
    good = line("web1", ED)
    trust = known.with_lines(
        "web1\n", "web1 ssh-ed25519\n", "web1 ssh-ed25519 !!!\n", "|1|x ssh-ed25519 AAAA\n",
        good.replace("ssh-ed25519", "ssh-rsa"), line("web1", OTHER, "@strange"),
        line("|1|%%%|%%%", OTHER), "\x00\xff\n", good,
    )  # fmt: skip
    assert accepted(trust, ED).trust.endswith(":9")
    assert "has changed" in refused(trust, OTHER)


def test_reads_changed_file_again(known: Trust) -> None:
    trust = known.with_lines(line("web1", ED))
    assert accepted(trust, ED).checked
    known.file.write_text(line("web1", OTHER) + "# another length\n")
    assert "has changed" in refused(trust, ED)
    assert accepted(trust, OTHER).checked
    known.file.unlink()
    assert "expected a host certificate" in refused(trust, OTHER)
    replacement = known.file.with_name("new")
    replacement.write_text(line("web1", ED))
    os.replace(replacement, known.file)
    assert accepted(trust, ED).checked


def test_trusts_nothing_when_file_is_directory(tmp_path: Path) -> None:
    trust = HostTrust(KnownHosts.load([tmp_path, tmp_path / "missing"]), authorities=())
    assert "expected a host certificate" in refused(trust, ED)


# --- certificates


def test_accepts_certificate_of_own_authority(known: Trust) -> None:
    trust = known.with_lines(authorities=(STRANGER.blob, CA.blob))
    verdict = accepted(trust, certificate("web1", "192.0.2.1"))
    assert verdict.trust == f"certificate 'web1 node' by {fingerprint(CA.blob)}"
    assert verdict.fingerprint == fingerprint(ED)
    assert verdict.algorithm == "ssh-ed25519-cert-v01@openssh.com"
    assert accepted(trust, certificate("web1"), PORT).checked  # principals have no ports


def test_accepts_certificate_of_authority_in_known_hosts(known: Trust) -> None:
    trust = known.with_lines(line("web*,!web9", CA.blob, "@cert-authority"))
    verdict = accepted(trust, certificate("web1"))
    assert verdict.trust == f"certificate 'web1 node' by the authority at {known.file}:1"
    assert accepted(trust, certificate("web1"), PORT).checked
    web9 = Target(host="web9")
    assert "its CA is not trusted" in refused(trust, certificate("web9"), web9)
    # A CA key is no host key, and a host key is no CA key.
    assert "expected a host certificate" in refused(trust, CA.blob)
    plain = known.with_lines(line("web1", CA.blob))
    assert "has changed" in refused(plain, certificate("web1"))


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (certificate("web2", "web3"), "it is for web2, web3, not for web1"),
        (certificate("web1", by=STRANGER), "its CA is not trusted"),
        (certificate("web1", kind=CertificateKind.USER), "it is a user certificate, not a host certificate"),
        (certificate("web1", days=-1), "it has expired"),
    ],
)
def test_falls_back_to_plain_key_when_certificate_is_rejected(known: Trust, shown: bytes, why: str) -> None:
    trust = known.with_lines(authorities=(CA.blob,))
    assert refused(trust, shown) == (
        f"web1:22 presented a host certificate that is not accepted: {why}."
        " Ask your administrator to sign a new one: conchrec ca sign-host --host web1"
    )
    # A known plain key in the certificate is sufficient, as without a certificate.
    pinned = known.with_lines(line("web1", ED), authorities=(CA.blob,))
    assert accepted(pinned, shown).trust == f"known_hosts {known.file}:1"
    # With another known key the certificate does not help.
    assert "has changed" in refused(known.with_lines(line("web1", OTHER), authorities=(CA.blob,)), shown)


def test_accepts_certificate_when_known_hosts_has_another_key(known: Trust) -> None:
    """A host with a new key and a new certificate has not changed."""
    trust = known.with_lines(line("web1", OTHER), authorities=(CA.blob,))
    assert accepted(trust, certificate("web1")).trust.startswith("certificate")


def test_rejects_revoked_key(known: Trust) -> None:
    lines = (line("web1", ED), line("*", ED, "@revoked"))
    trust = known.with_lines(*lines, authorities=(CA.blob,))
    for shown in (ED, certificate("web1")):
        assert refused(trust, shown) == (
            f"the host key of web1:22 is revoked ({fingerprint(ED)}, {known.file}:2)."
            " Ask your administrator to replace it"
        )
    trust = known.with_lines(line("*", CA.blob, "@revoked"), authorities=(CA.blob,))
    assert "revoked" in refused(trust, certificate("web1"))
    # Also if the check is turned off.
    assert "revoked" in refused(known.with_lines(*lines, check=False), ED)


def test_accepts_any_key_as_unchecked_when_check_is_off(known: Trust) -> None:
    trust = known.with_lines(line("web1", OTHER), check=False)
    verdict = accepted(trust, ED)
    assert not verdict.checked
    assert verdict.trust == "not checked (proxy_checks_host_keys: no)"
    assert accepted(trust, OTHER).checked
    assert not accepted(trust, certificate("web1", by=STRANGER)).checked


@pytest.mark.parametrize(
    "shown", [b"", b"\0\0\0\x0bssh", string(b"ssh-ed25519" + CERTIFICATE) + b"x", certificate("web1")[:-1]]
)
def test_rejects_malformed_key(known: Trust, shown: bytes) -> None:
    trust = known.with_lines(check=False, authorities=(CA.blob,))
    assert "malformed" in refused(trust, shown)


# --- algorithms


def test_offers_algorithms_of_trusted_keys_first(known: Trust) -> None:
    usual = (*CERTIFIED, *PLAIN)
    assert known.with_lines().algorithms_for(WEB1) == usual
    rsa = known.with_lines(line("web1", RSA)).algorithms_for(WEB1)
    assert rsa[:4] == (
        b"rsa-sha2-512-cert-v01@openssh.com",
        b"rsa-sha2-256-cert-v01@openssh.com",
        b"rsa-sha2-512",
        b"rsa-sha2-256",
    )
    assert sorted(rsa) == sorted(usual)
    both = known.with_lines(line("web1", RSA), line("web1", ED)).algorithms_for(WEB1)
    assert both[:3] == (
        b"ssh-ed25519-cert-v01@openssh.com",
        b"rsa-sha2-512-cert-v01@openssh.com",
        b"rsa-sha2-256-cert-v01@openssh.com",
    )
    for other in (line("web2", RSA), line("web1", RSA, "@revoked"), line("web1", RSA, "@cert-authority")):
        assert known.with_lines(other).algorithms_for(WEB1) == usual
    assert b"ssh-rsa" not in usual
