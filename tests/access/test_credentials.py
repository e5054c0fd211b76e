"""Credentials that are somebody's, and all those that are not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.keys import Key

from conchrec.access.authorized_keys import AuthorizedKey
from conchrec.access.certificate_grant import PROXY_ONLY
from conchrec.access.credentials import Credentials, fingerprint
from conchrec.ca.revocation import Revoked
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.ssh.certificate import CertificateKind, certificate_type, decode, key_type_of
from conchrec.ssh.wire import string
from tests.support.logins import KINDS, authority, key, user_certificate

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
HERE = "10.0.0.7"
CA = authority()
ED = b"ssh-ed25519"
ED_CERT = certificate_type(ED)


def blob_of(kind: str = "ed25519", number: int = 0) -> bytes:
    blob: bytes = key(kind, number).public().blob()
    return blob


JOE, ANN = blob_of(), blob_of(number=1)


def credentials(*joes: AuthorizedKey, authorities: tuple[bytes, ...] = (CA.blob,)) -> Credentials:
    return Credentials(
        users={
            "joe": joes or (AuthorizedKey(blob=JOE),),
            "ann": (AuthorizedKey(blob=ANN),),
            "nix": (),
        },
        roles={"joe": ("ops",)},
        authorities=lambda: authorities,
    )


def refused(
    who: Credentials, user: str, algorithm: bytes, blob: bytes, source: str = HERE, now: datetime = NOW
) -> str:
    """Why not."""
    assert not who.acceptable(user, algorithm, blob, source, now)
    with pytest.raises(AccessDenied) as caught:
        who.identity(user, algorithm, blob, source, now)
    assert caught.value.public == "Permission denied"
    assert caught.value.detail
    return caught.value.detail


# --- plain keys


def test_accepts_key() -> None:
    who = credentials()
    assert who.acceptable("joe", ED, JOE, HERE, NOW)
    assert who.identity("joe", ED, JOE, HERE, NOW) == Identity(
        user="joe", method="publickey", roles=("ops",), key=JOE
    )
    assert who.identity("ann", ED, ANN, HERE, NOW).roles == ()


@pytest.mark.parametrize("kind", KINDS)
def test_accepts_key_type_with_its_algorithms_only(kind: str) -> None:
    blob = blob_of(kind)
    named = {other: key_type_of(blob_of(other)) for other in KINDS}
    good = {named[kind]} if kind != "rsa" else {b"rsa-sha2-256", b"rsa-sha2-512"}
    who = credentials(AuthorizedKey(blob=blob))
    plain = [*named.values(), b"rsa-sha2-256", b"rsa-sha2-512", b"ssh-dss", b""]
    for algorithm in [*plain, *map(certificate_type, plain)]:
        assert who.acceptable("joe", algorithm, blob, HERE, NOW) == (algorithm in good)
        certificate = user_certificate(key(kind))
        expected = algorithm in set(map(certificate_type, good))
        assert who.acceptable("joe", algorithm, certificate, HERE, NOW) == expected


def test_rejects_sha1_algorithm() -> None:
    who = credentials(AuthorizedKey(blob=blob_of("rsa")))
    assert "ssh-rsa" in refused(who, "joe", b"ssh-rsa", blob_of("rsa"))


def test_rejects_keys_of_other_users() -> None:
    who = credentials()
    assert refused(who, "joe", ED, ANN) == f"{fingerprint(ANN)} is not a key of joe"
    assert refused(who, "nix", ED, ANN).endswith("is not a key of nix")
    assert refused(who, "eve", ED, JOE) == "no such user"
    assert refused(who, "", ED, JOE) == "no such user"
    assert refused(who, "JOE", ED, JOE) == "no such user"


def test_rejects_everything_without_users() -> None:
    assert refused(Credentials(users={}, authorities=lambda: ()), "joe", ED, JOE)


def test_enforces_from_option() -> None:
    who = credentials(AuthorizedKey(blob=JOE, sources=("10.0.0.0/8", "!10.0.0.9")))
    assert who.acceptable("joe", ED, JOE, HERE, NOW)
    for source in ("10.0.0.9", "192.168.0.1", "unknown", ""):
        assert "cannot be used from" in refused(who, "joe", ED, JOE, source)
    assert not credentials(AuthorizedKey(blob=JOE, sources=())).acceptable("joe", ED, JOE, HERE, NOW)


def test_marks_credential_with_source_as_pinned() -> None:
    """What is made on its word must not be, either."""
    pinned, free = (
        AuthorizedKey(blob=JOE, sources=("10.0.0.0/8",)),
        AuthorizedKey(blob=JOE, expires=NOW + SECOND),
    )
    for lines, expected in (((pinned,), True), ((free,), False), ((pinned, free), True)):
        assert credentials(*lines).identity("joe", ED, JOE, HERE, NOW).pinned is expected
    for options, expected in (
        ({"source-address": string(b"10.0.0.0/8")}, True),
        ({"verify-required": b""}, False),
    ):
        blob = user_certificate(key(), critical_options=options)
        assert credentials().identity("joe", ED_CERT, blob, HERE, NOW).pinned is expected


def test_accepts_certificate_for_proxy_only() -> None:
    blob = user_certificate(key(), critical_options={PROXY_ONLY: b""})
    assert credentials().acceptable("joe", ED_CERT, blob, HERE, NOW)


def test_enforces_expiry_time() -> None:
    who = credentials(AuthorizedKey(blob=JOE, expires=NOW))
    assert who.identity("joe", ED, JOE, HERE, NOW - SECOND).expires == NOW
    assert "expired" in refused(who, "joe", ED, JOE)


def test_accepts_key_if_one_of_its_lines_allows_it() -> None:
    who = credentials(
        AuthorizedKey(blob=JOE, sources=("10.0.0.1",)),
        AuthorizedKey(blob=JOE, expires=NOW - SECOND),
        AuthorizedKey(blob=JOE, expires=NOW + SECOND),
        AuthorizedKey(blob=JOE, expires=NOW + 2 * SECOND),
    )
    assert who.identity("joe", ED, JOE, HERE, NOW).expires == NOW + 2 * SECOND
    assert who.identity("joe", ED, JOE, "10.0.0.1", NOW).expires is None
    assert "cannot be used from" in refused(who, "joe", ED, JOE, HERE, NOW + 2 * SECOND)


# --- certificates


def test_accepts_certificate() -> None:
    ends = int(NOW.timestamp()) + 3600
    blob = user_certificate(key(number=5), valid_before=ends)
    identity = credentials().identity("joe", ED_CERT, blob, HERE, NOW)
    assert identity == Identity(
        user="joe",
        method="publickey",
        roles=("ops",),
        key=blob_of(number=5),
        certificate=blob,
        expires=NOW + timedelta(hours=1),
    )


def test_accepts_certificate_of_user_without_keys() -> None:
    assert credentials().acceptable("nix", ED_CERT, user_certificate(key(), key_id="nix"), HERE, NOW)


def test_requires_key_id_equal_to_user() -> None:
    """The principals say as whom it may log in at targets."""
    who = credentials()
    blob = user_certificate(key(), key_id="joe", principals=("ann", "root"))
    assert who.acceptable("joe", ED_CERT, blob, HERE, NOW)
    assert "'joe', not ann" in refused(who, "ann", ED_CERT, blob)
    assert refused(who, "root", ED_CERT, blob) == "no such user"
    for strange in ("", "joe ", "joe\0", "joe,ann"):
        assert refused(who, "joe", ED_CERT, user_certificate(key(), key_id=strange))
    assert refused(who, "eve", ED_CERT, user_certificate(key(), key_id="eve")) == "no such user"


def test_keeps_force_command_in_inner_login() -> None:
    """Outside and inside: what binds the one is not lost by coming with another key to the other."""
    who = credentials()
    forced = user_certificate(key(), critical_options={"force-command": string(b"uptime")})
    other = user_certificate(key(), critical_options={"force-command": string(b"id")})
    outer = who.identity("joe", ED_CERT, forced, HERE, NOW)
    assert outer.force_command == "uptime"
    free = who.identity("joe", ED_CERT, user_certificate(key()), HERE, NOW)
    assert free.force_command == ""
    assert who.identity_of_inner_login(outer, ED_CERT, forced, HERE, NOW)
    assert not who.identity_of_inner_login(outer, ED_CERT, other, HERE, NOW)
    assert not who.identity_of_inner_login(outer, ED, JOE, HERE, NOW)
    assert not who.identity_of_inner_login(free, ED_CERT, forced, HERE, NOW)


def test_rejects_invalid_certificates() -> None:
    who = credentials()
    now = int(NOW.timestamp())
    good = user_certificate(key())
    bad = {
        "host certificate": user_certificate(key(), kind=CertificateKind.HOST),
        "its CA is not trusted": user_certificate(key(), by=authority(1)),
        "expired": user_certificate(key(), valid_before=now),
        "not valid yet": user_certificate(key(), valid_after=now + 1),
        "force-command of the certificate is empty": user_certificate(
            key(), critical_options={"force-command": string(b" ")}
        ),
        "critical option": user_certificate(key(), critical_options={"x@y": b""}),
        "10.0.0.7": user_certificate(key(), critical_options={"source-address": string(b"192.168.0.0/16")}),
        "signature": good[:-1] + bytes((good[-1] ^ 1,)),
        "malformed": good + b"x",
    }
    for why, blob in bad.items():
        assert why in refused(who, "joe", ED_CERT, blob)
    assert who.acceptable("joe", ED_CERT, good, HERE, NOW)


def test_rejects_certificate_without_principals() -> None:
    good = decode(user_certificate(key(), principals=("joe",)))
    unsigned = good.signed.replace(string(string(b"joe")), string(b""))
    blob = unsigned + string(CA.sign(unsigned))
    assert "principal" in refused(credentials(), "joe", ED_CERT, blob)


def test_accepts_certificate_from_its_source_address() -> None:
    blob = user_certificate(key(), critical_options={"source-address": string(b"10.0.0.0/8")})
    assert credentials().acceptable("joe", ED_CERT, blob, HERE, NOW)


def test_rejects_certificate_of_unknown_authority() -> None:
    nobody = credentials(authorities=())
    assert not nobody.acceptable("joe", ED_CERT, user_certificate(key()), HERE, NOW)


def test_rejects_certificate_as_authority() -> None:
    """CVE-2025-49825: a certificate that our CA signed is not a CA."""
    middle = user_certificate(key(number=6))

    class Middle:
        blob = middle

        def sign(self, data: bytes) -> bytes:
            signature: bytes = key(number=6).sign(data)
            return signature

    forged = user_certificate(key(), by=Middle())
    assert "CA key" in refused(credentials(authorities=(CA.blob, middle)), "joe", ED_CERT, forged)


def test_rejects_certificate_signed_by_listed_user_key() -> None:
    blob = user_certificate(key(), by=authority(1))
    who = credentials(AuthorizedKey(blob=JOE), AuthorizedKey(blob=authority(1).blob))
    assert not who.acceptable("joe", ED_CERT, blob, HERE, NOW)


def test_rejects_short_rsa_key_in_certificate() -> None:
    """ssh-keygen signs those; our own CA does not."""
    short = Key(rsa.generate_private_key(65537, 1024)).public().blob()
    long = decode(user_certificate(key("rsa")))
    unsigned = long.signed.replace(long.public_key[11:], short[11:])
    blob = unsigned + string(CA.sign(unsigned))
    algorithm = certificate_type(b"rsa-sha2-512")
    assert "1024 bits" in refused(credentials(), "joe", algorithm, blob)


def test_rejects_revoked_credentials() -> None:
    who = Credentials(
        users={"joe": ()},
        authorities=lambda: (CA.blob,),
        revoked=lambda: Revoked(serials=frozenset({1})),
    )
    assert "revoked" in refused(who, "joe", ED_CERT, user_certificate(key()))


# --- the same user again


def test_requires_inner_key_of_outer_user() -> None:
    laptop, phone = blob_of(number=2), blob_of(number=3)
    who = credentials(AuthorizedKey(blob=laptop), AuthorizedKey(blob=phone))
    joe = who.identity("joe", ED, laptop, HERE, NOW)
    assert who.identity_of_inner_login(joe, ED, laptop, HERE, NOW)
    assert who.identity_of_inner_login(joe, ED, phone, HERE, NOW)
    assert who.identity_of_inner_login(joe, ED_CERT, user_certificate(key(number=8)), HERE, NOW)
    assert not who.identity_of_inner_login(joe, ED, ANN, HERE, NOW)
    assert not who.identity_of_inner_login(
        joe, ED_CERT, user_certificate(key(number=8), key_id="ann"), HERE, NOW
    )
    assert not who.identity_of_inner_login(joe, b"rsa-sha2-512", laptop, HERE, NOW)


def test_enforces_key_options_in_inner_login() -> None:
    who = credentials(AuthorizedKey(blob=JOE), AuthorizedKey(blob=ANN, sources=("192.168.0.0/16",)))
    joe = who.identity("joe", ED, JOE, HERE, NOW)
    assert not who.identity_of_inner_login(joe, ED, ANN, HERE, NOW)


# --- anything at all


@given(st.binary(max_size=200), st.binary(max_size=40), st.text(max_size=10))
def test_rejects_malformed_blobs(blob: bytes, algorithm: bytes, user: str) -> None:
    who = credentials()
    for malformed in (blob, string(algorithm) + blob, string(ED_CERT) + blob, JOE + blob[:1]):
        if malformed != JOE:
            refused(who, user, algorithm, malformed)
            refused(who, "joe", ED, malformed)
            refused(who, "joe", ED_CERT, malformed)
