"""Certificates: compatibility with ssh-keygen in both directions, and rejected certificates."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.errors import CertificateRejected, RemoteViolation
from conchrec.ssh import certificate as c
from conchrec.ssh import certificate_checks as checks
from conchrec.ssh import signatures
from conchrec.ssh.wire import mpint, string
from tests.support.keys import keygen
from tests.support.logins import KINDS, authority, key, user_certificate

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
CA = authority()
HERE = "192.0.2.7"
#: Kinds as ssh-keygen names them.
GENERATED = {"ed25519": (), "rsa": ("-b", "2048"), "ecdsa": ("-b", "384")}


def generate(path: Path, kind: str = "ed25519") -> Path:
    keygen("-q", "-t", kind, *GENERATED[kind], "-N", "", "-C", path.name, "-f", path)
    return path


def blob_of(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


def sign(directory: Path, *options: str, by: str = "ed25519", kind: str = "ed25519") -> c.Certificate:
    """Let ssh-keygen sign a new key. The CA key is ``ca`` in ``directory``."""
    generate(directory / "ca", by)
    generate(directory / "key", kind)
    keygen("-q", "-s", directory / "ca", "-I", "joe", *options, directory / "key.pub")
    return c.decode(blob_of(directory / "key-cert.pub"))


def host(certificate: c.Certificate, name: str = "web1", now: datetime = NOW, by: bytes = CA.blob) -> None:
    checks.check_host(certificate, authorities=(by,), name=name, now=now)


def user(certificate: c.Certificate, source: str = HERE, now: datetime = NOW, by: bytes = CA.blob) -> None:
    checks.check_user(certificate, authorities=(by,), now=now, source=source)


def made(
    kind: c.CertificateKind = c.CertificateKind.USER,
    principals: tuple[str, ...] = ("joe",),
    options: Mapping[str, bytes] | None = None,
    after: datetime = NOW - HOUR,
    before: datetime = NOW + HOUR,
) -> c.Certificate:
    return c.issue(
        authority=CA,
        public_key=key().public().blob(),
        kind=kind,
        serial=7,
        key_id="joe",
        principals=principals,
        valid_after=int(after.timestamp()),
        valid_before=int(before.timestamp()),
        critical_options=options,
    )


def host_certificate(*principals: str) -> c.Certificate:
    return made(c.CertificateKind.HOST, principals)


def why(certificate: c.Certificate, **more: object) -> str:
    """Return the text of the rejection as a user certificate."""
    with pytest.raises(CertificateRejected) as caught:
        user(certificate, **more)  # type: ignore[arg-type]
    return caught.value.public


# --- certificates of ssh-keygen


@pytest.mark.parametrize("by", GENERATED)
@pytest.mark.parametrize("kind", GENERATED)
def test_parses_user_certificate_of_ssh_keygen(tmp_path: Path, by: str, kind: str) -> None:
    certificate = sign(
        tmp_path, "-n", "joe,root", "-z", "18446744073709551615", "-V", "20261123110000Z:20261123130000Z",
        "-O", "source-address=192.0.2.0/24,2001:db8::/32", "-O", "no-x11-forwarding",
        by=by, kind=kind,
    )  # fmt: skip
    assert certificate.kind is c.CertificateKind.USER
    assert (certificate.key_id, certificate.principals, certificate.serial) == (
        "joe",
        ("joe", "root"),
        2**64 - 1,
    )
    assert certificate.public_key == blob_of(tmp_path / "key.pub")
    assert certificate.authority == blob_of(tmp_path / "ca.pub")
    assert certificate.valid_until_text == "2026-11-23T13:00:00Z"
    assert c.option_text(certificate.critical_options["source-address"]) == "192.0.2.0/24,2001:db8::/32"
    assert sorted(certificate.extensions) == [
        "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc",
    ]  # fmt: skip
    user(certificate, by=certificate.authority)
    user(certificate, by=certificate.authority, source="2001:db8::9")
    user(certificate, by=certificate.authority, source="::ffff:192.0.2.9")
    assert "does not allow logins from 198.51.100.1" in why(
        certificate, by=certificate.authority, source="198.51.100.1"
    )
    assert "expired" in why(certificate, by=certificate.authority, now=NOW + HOUR)
    assert "not valid yet" in why(
        certificate, by=certificate.authority, now=NOW - HOUR - timedelta(seconds=1)
    )
    assert "its CA is not trusted" in why(certificate)
    assert c.fingerprint(certificate.blob) == c.fingerprint(certificate.public_key)
    assert c.fingerprint(certificate.blob) in keygen("-l", "-f", tmp_path / "key.pub")


def test_parses_host_certificate_of_ssh_keygen(tmp_path: Path) -> None:
    certificate = sign(tmp_path, "-h", "-n", "web1,web1.example.com,192.0.2.1,2001:db8::1")
    assert certificate.kind is c.CertificateKind.HOST
    assert certificate.valid_until_text == "forever"
    for name in ("web1", "WEB1", "web1.example.com", "192.0.2.1", "2001:DB8:0::1"):
        host(certificate, name, by=certificate.authority)
    for name in ("web2", "web1.example", "example.com", "*", "", "192.0.2.10", "web1,web1.example.com"):
        with pytest.raises(CertificateRejected, match=r"it is for web1, web1\.example\.com"):
            host(certificate, name, by=certificate.authority)


def test_rejects_sha1_signature_of_authority(tmp_path: Path) -> None:
    certificate = sign(tmp_path, "-t", "ssh-rsa", "-n", "joe", by="rsa")
    assert "signature verification failed" in why(certificate, by=certificate.authority)


def test_rejects_force_command_unless_caller_knows_it(tmp_path: Path) -> None:
    certificate = sign(tmp_path, "-n", "joe", "-O", "force-command=/bin/true")
    assert "force-command" in why(certificate, by=certificate.authority)


def test_accepts_verify_required(tmp_path: Path) -> None:
    certificate = sign(tmp_path, "-n", "joe", "-O", "verify-required")
    user(certificate, by=certificate.authority)
    assert "verify-required" in certificate.critical_options


# --- our certificates


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_reads_what_we_issue(tmp_path: Path, kind: str) -> None:
    issued = c.issue(
        authority=CA,
        public_key=key(kind).public().blob(),
        kind=c.CertificateKind.USER,
        serial=12,
        key_id="jö/s1",
        principals=("root", "www-data"),
        valid_after=int((NOW - HOUR).timestamp()),
        valid_before=int((NOW + HOUR).timestamp()),
        critical_options={"source-address": string(b"192.0.2.0/24")},
        extensions={"permit-pty": b"", "permit-agent-forwarding": b""},
    )
    assert c.decode(issued.blob) == issued
    user(issued)
    path = tmp_path / "key-cert.pub"
    path.write_text(f"{issued.algorithm.decode()} {base64.b64encode(issued.blob).decode()}\n")
    lines = [line.strip() for line in keygen("-L", "-f", path).splitlines()]
    assert f"Type: {issued.algorithm.decode()} user certificate" in lines
    assert "Serial: 12" in lines
    assert "Valid: from 2026-11-23T11:00:00 to 2026-11-23T13:00:00" in lines
    assert lines[lines.index("Principals:") :] == [
        "Principals:", "root", "www-data", "Critical Options:", "source-address 192.0.2.0/24",
        "Extensions:", "permit-agent-forwarding", "permit-pty",
    ]  # fmt: skip
    assert f"Signing CA: ED25519 {c.fingerprint(CA.blob)} (using ssh-ed25519)" in lines


def test_issues_different_certificates_for_same_fields() -> None:
    assert made().blob != made().blob


@pytest.mark.parametrize(
    "principals", [(), ("",), ("a,b",), ("a\nb",), ("a\0",), ("web1", ""), ("x" * 257,), ("\x1b[31m",)]
)
def test_rejects_issue_for_invalid_principal(principals: tuple[str, ...]) -> None:
    with pytest.raises(CertificateRejected, match="invalid principal"):
        made(principals=principals)


def test_rejects_issue_for_unsuitable_key_or_period() -> None:
    small = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    blob = string(b"ssh-rsa") + mpint(small.e) + mpint(small.n)
    for public, text in (
        (made().blob, "only a plain public key"),
        (string(b"ssh-dss") + bytes(100), "only a plain public key"),
        (blob, "at least 2048 bits"),
    ):
        with pytest.raises(CertificateRejected, match=text):
            c.issue(
                authority=CA, public_key=public, kind=c.CertificateKind.USER, serial=1, key_id="joe",
                principals=("joe",), valid_after=0, valid_before=c.FOREVER,
            )  # fmt: skip
    with pytest.raises(RemoteViolation):
        c.issue(
            authority=CA, public_key=key().public().blob() + b"x", kind=c.CertificateKind.USER,
            serial=1, key_id="joe",
            principals=("joe",), valid_after=0, valid_before=c.FOREVER,
        )  # fmt: skip
    with pytest.raises(CertificateRejected, match="validity period of the certificate is empty"):
        made(before=NOW - HOUR)


# --- rejected certificates


def test_rejects_certificate_of_the_other_kind() -> None:
    with pytest.raises(CertificateRejected, match="it is a user certificate"):
        host(made(principals=("web1",)))
    assert "it is a host certificate" in why(host_certificate("joe"))


def resigned(certificate: c.Certificate, old: bytes, new: bytes) -> c.Certificate:
    """Return the certificate with other bytes and a valid signature."""
    assert certificate.signed.count(old) == 1
    signed = certificate.signed.replace(old, new)
    return c.decode(signed + string(CA.sign(signed)))


def test_rejects_certificate_without_principals() -> None:
    list_of_one = string(string(b"joe"))
    nobody = resigned(made(), list_of_one, string(b""))
    assert nobody.principals == ()
    assert "no principal" in why(nobody)
    nowhere = resigned(host_certificate("joe"), list_of_one, string(b""))
    with pytest.raises(CertificateRejected, match="it is for no host, not for web1"):
        host(nowhere)


@pytest.mark.parametrize("name", [b"joe,root", b"", b"joe\x1b[0m", b"joe\n"])
def test_rejects_certificate_with_invalid_principal(name: bytes) -> None:
    strange = resigned(made(), string(string(b"joe")), string(string(name)))
    assert "it has an invalid principal" in why(strange)


def test_rejects_certificate_as_authority() -> None:
    """CVE-2025-49825: the CA key is a certificate, whose own signature nobody has verified."""
    nested = made()
    around = resigned(nested, string(CA.blob), string(nested.blob))
    assert around.authority == nested.blob
    assert "its CA key is not a plain key" in why(around, by=nested.blob)
    assert "its CA key is not a plain key" in why(around)
    rubbish = resigned(nested, string(CA.blob), string(b"x"))
    assert "its CA key is malformed" in why(rubbish, by=b"x")


def test_rejects_unknown_critical_option() -> None:
    assert "'never-heard-of'" in why(made(options={"never-heard-of": b""}))
    with pytest.raises(CertificateRejected, match="must not have critical options"):
        host(made(c.CertificateKind.HOST, ("web1",), options={"source-address": string(b"192.0.2.0/24")}))


@pytest.mark.parametrize(
    "value",
    [b"", string(b""), string(b"192.0.2.0/24") + b"x", string(b"!192.0.2.7"), string(b"\xff"), b"abc"],
)
def test_rejects_invalid_source_address_option(value: bytes) -> None:
    assert "does not allow logins from" in why(made(options={"source-address": value}))


def test_rejects_source_that_is_no_address() -> None:
    limited = made(options={"source-address": string(b"0.0.0.0/0")})
    user(limited)
    assert "does not allow logins from /run/socket" in why(limited, source="/run/socket")


def test_accepts_certificate_only_within_validity() -> None:
    limited = made()
    user(limited, now=NOW - HOUR)
    user(limited, now=NOW + HOUR - timedelta(seconds=1))
    assert "not valid yet" in why(limited, now=NOW - HOUR - timedelta(seconds=1))
    assert "expired" in why(limited, now=NOW + HOUR)
    forever = c.decode(user_certificate(key()))
    assert forever.expires is None
    user(forever)
    backwards = resigned(
        limited,
        limited.valid_after.to_bytes(8, "big") + limited.valid_before.to_bytes(8, "big"),
        bytes(8) * 2,
    )
    assert "expired" in why(backwards)


def test_rejects_revoked_certificate() -> None:
    with pytest.raises(CertificateRejected, match="it is revoked"):
        checks.check_user(
            made(),
            authorities=(CA.blob,),
            now=NOW,
            source=HERE,
            revoked=lambda revocable: revocable.serial == 7,
        )
    checks.check_user(made(), authorities=(CA.blob,), now=NOW, source=HERE, revoked=checks.never_revoked)


def test_rejects_certificate_with_any_byte_changed() -> None:
    good = made()
    for at in range(len(good.blob)):
        changed = bytearray(good.blob)
        changed[at] ^= 0x01
        with pytest.raises((CertificateRejected, RemoteViolation)):
            user(c.decode(bytes(changed)))


def test_rejects_signature_of_another_authority() -> None:
    other = authority(1)
    good = made()
    stolen = replace(good, signature=other.sign(good.signed))
    assert "signature verification failed" in why(stolen)
    for rubbish in (b"", b"\0\0", string(b"none") + string(b"")):
        assert "signature verification failed" in why(replace(good, signature=rubbish))


@pytest.mark.parametrize("cut", [0, 3, 4, 20, 80, -1])
def test_rejects_truncated_certificate(cut: int) -> None:
    with pytest.raises(RemoteViolation):
        c.decode(made().blob[:cut])


def test_rejects_malformed_certificates() -> None:
    for blob in (
        key().public().blob(),
        made().blob + b"x",
        string(b"ssh-dss-cert-v01@openssh.com") + bytes(400),
        string(b"ssh-ed25519-cert-v01@openssh.com") + bytes(c.MAX_BLOB),
    ):
        with pytest.raises(RemoteViolation):
            c.decode(blob)
    third = made().signed.replace(b"\0\0\0\0\0\0\0\x07\0\0\0\x01", b"\0\0\0\0\0\0\0\x07\0\0\0\x03")
    with pytest.raises(RemoteViolation, match="unknown certificate type 3"):
        c.decode(third + string(CA.sign(third)))
    twice = string(b"source-address") + string(string(b"192.0.2.0/24"))
    good = made(options={"source-address": string(b"192.0.2.0/24")})
    with pytest.raises(RemoteViolation, match="twice"):
        resigned(good, string(twice), string(twice * 2))
    with pytest.raises(RemoteViolation, match="not UTF-8"):
        resigned(made(), string(string(b"joe")), string(string(b"\xff")))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_raises_only_violations_for_random_bytes(rubbish: bytes) -> None:
    for blob in (rubbish, string(b"ssh-ed25519-cert-v01@openssh.com") + rubbish):
        with pytest.raises(RemoteViolation):
            c.decode(blob)
        assert c.fingerprint(blob).startswith("SHA256:")
        assert not signatures.verify_signature(b"ssh-ed25519", blob, b"data", rubbish)


# --- type names


@pytest.mark.parametrize("plain", c.KEY_TYPES)
def test_converts_certificate_types_both_ways(plain: bytes) -> None:
    assert c.plain_type(c.certificate_type(plain)) == plain
    assert c.plain_type(plain) == plain
    assert c.certificate_type(b"sk-ssh-ed25519@openssh.com") == b"sk-ssh-ed25519-cert-v01@openssh.com"


@pytest.mark.parametrize("field", ["principals", "critical_options", "extensions"])
@pytest.mark.parametrize(("count", "good"), [(c.MAX_PRINCIPALS, True), (c.MAX_PRINCIPALS + 1, False)])
def test_rejects_certificate_with_more_names_than_openssh_reads(field: str, count: int, good: bool) -> None:
    names = [f"name{number}" for number in range(count)]
    fields = {field: names if field == "principals" else dict.fromkeys(names, b"")}

    def issue() -> c.Certificate:
        return c.issue(
            authority=CA,
            public_key=key("ed25519").public().blob(),
            kind=c.CertificateKind.USER,
            serial=1,
            key_id="many",
            **{"principals": ["joe"], "valid_after": 0, "valid_before": 1} | fields,  # type: ignore[arg-type]
        )

    if good:
        assert issue().principals
    else:
        with pytest.raises(RemoteViolation, match="more than 256"):
            issue()
