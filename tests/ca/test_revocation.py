"""What is revoked: written down, read again, and taken back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from conchrec.ca.authority import Authority
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.errors import ConfigError
from conchrec.model import Identity
from conchrec.ssh.certificate import Certificate
from conchrec.ssh.krl import decode, revokes
from conchrec.ssh.wire import string

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def blob() -> bytes:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return string(b"ssh-ed25519") + string(public.public_bytes_raw())


KEYS = (blob(), blob(), blob())
values = st.builds(
    Revoked,
    serials=st.frozensets(st.integers(1, 2**63 - 1), max_size=9),
    key_ids=st.frozensets(st.sampled_from(["joe", "ann", "jöe", "a b"])),
    users=st.frozensets(st.sampled_from(["joe", "ann"])),
    keys=st.frozensets(st.sampled_from(KEYS)),
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "state", "example.com", now=lambda: NOON)


def signed(authority: Authority, key: bytes, key_id: str = "joe") -> Certificate:
    return authority.sign_user(key, principals=("root",), key_id=key_id, ttl=timedelta(hours=1))


@given(values)
def test_writes_and_reads_revocations(value: Revoked) -> None:
    assert Revoked.from_json(json.loads(json.dumps(value.to_json()))) == value


@given(values, values)
def test_adds_and_removes_revocations(first: Revoked, second: Revoked) -> None:
    both = first.with_(second)
    assert both == second.with_(first) == both.with_(first)
    assert both.without(both) == Revoked()
    assert first.without(second).with_(second) == both


def test_revokes_each_kind(authority: Authority) -> None:
    """And nothing else; the list for sshd says the same."""
    first, second = signed(authority, KEYS[0]), signed(authority, KEYS[1], "ann")
    for revoked in (
        Revoked(serials=frozenset({first.serial})),
        Revoked(key_ids=frozenset({"joe"})),
        Revoked(users=frozenset({"joe"})),
        Revoked(keys=frozenset({KEYS[0]})),
    ):
        assert revoked.has(first)
        assert not revoked.has(second)
        krl = decode(revoked.krl((authority.user_ca_public, authority.host_ca_public)))
        assert revokes(krl, first.blob)
        assert not revokes(krl, second.blob)
    assert decode(Revoked().krl((authority.user_ca_public,))).certificates == ()


def test_reads_serials_that_were_written_as_numbers() -> None:
    fields = Revoked(serials=frozenset({7, 2**62 + 1})).to_json()
    assert fields["serials"] == ["7", str(2**62 + 1)]
    for serials in (fields["serials"], [7, 2**62 + 1]):
        assert Revoked.from_json(fields | {"serials": serials}).serials == {7, 2**62 + 1}


def test_ignores_serials_of_other_authorities(authority: Authority, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", "example.org", now=lambda: NOON)
    ours, theirs = signed(authority, KEYS[0]), signed(other, KEYS[1])
    krl = decode(Revoked(serials=frozenset({ours.serial, theirs.serial})).krl((authority.user_ca_public,)))
    assert revokes(krl, ours.blob)
    assert not revokes(krl, theirs.blob)


def test_rejects_revoked_identities(authority: Authority) -> None:
    certificate = signed(authority, KEYS[0])
    by_key = Identity(user="joe", method="publickey", key=KEYS[1])
    by_certificate = Identity(
        user="joe", method="publickey", key=certificate.public_key, certificate=certificate.blob
    )
    by_password = Identity(user="joe", method="keyboard-interactive")
    user = Revoked(users=frozenset({"joe"}))
    for identity in (by_key, by_certificate, by_password):
        assert user.why(identity) == "the user joe has been revoked"
        assert Revoked().why(identity) is None
    assert Revoked(keys=frozenset({KEYS[1]})).why(by_key) == "your key has been revoked"
    serial = Revoked(serials=frozenset({certificate.serial}))
    assert serial.why(by_certificate) == "your certificate has been revoked"
    assert serial.why(by_key) is serial.why(by_password) is None
    # A key id is that of certificates; the user with that name is another matter.
    assert Revoked(key_ids=frozenset({"joe"})).why(by_key) is None


# --- the file


def test_notices_change_of_another_process(tmp_path: Path) -> None:
    mine, theirs = (Revocations(tmp_path, lambda: NOON) for _ in range(2))
    mine.change(add=Revoked(serials=frozenset({7})))
    assert mine.current == Revoked(version=1, changed=int(NOON.timestamp()), serials=frozenset({7}))
    assert theirs.current == Revoked()
    assert theirs.refresh()
    assert theirs.current == mine.current
    assert not theirs.refresh()
    theirs.change(add=Revoked(users=frozenset({"joe"})), remove=Revoked(serials=frozenset({7})))
    assert mine.refresh()
    assert mine.current == Revoked(version=2, changed=int(NOON.timestamp()), users=frozenset({"joe"}))
    assert (tmp_path / "revocations.json").stat().st_mode & 0o777 == 0o600


def test_ignores_repeated_change(tmp_path: Path) -> None:
    mine = Revocations(tmp_path, lambda: NOON)
    mine.change(add=Revoked(serials=frozenset({7})))
    before = (tmp_path / "revocations.json").stat()
    assert mine.change(add=Revoked(serials=frozenset({7}))).version == 1
    assert (tmp_path / "revocations.json").stat() == before


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "changed": 0, "serials": ["seven"], "key_ids": [], "users": [], "keys": []}',
        '{"version": 1, "changed": 0, "serials": ["-7"], "key_ids": [], "users": [], "keys": []}',
        f'{{"version": 1, "changed": 0, "serials": ["{2**64}"], "key_ids": [], "users": [], "keys": []}}',
        '{"version": 1, "changed": 0, "serials": 7, "key_ids": [], "users": [], "keys": []}',
        '{"version": 1, "changed": 0, "serials": [-1], "key_ids": [], "users": [], "keys": []}',
        '{"version": 1, "changed": 0, "serials": [], "key_ids": [7], "users": [], "keys": []}',
        '{"version": 1, "changed": 0, "serials": [], "key_ids": [], "users": ["\\u001b"], "keys": []}',
        '{"version": 1, "changed": 0, "serials": [], "key_ids": [], "users": [], "keys": ["ssh-rsa AAAA"]}',
        '{"version": true, "changed": 0, "serials": [], "key_ids": [], "users": [], "keys": []}',
    ],
)
def test_keeps_last_known_revocations_with_damaged_file(tmp_path: Path, contents: str) -> None:
    """It is said, it is kept, and what was known before stays revoked."""
    mine = Revocations(tmp_path, lambda: NOON)
    mine.change(add=Revoked(serials=frozenset({7})))
    (tmp_path / "revocations.json").write_text(contents)
    with pytest.raises(ConfigError, match="is damaged"):
        mine.refresh()
    with pytest.raises(ConfigError, match="is damaged"):
        mine.change(add=Revoked(serials=frozenset({8})))
    with pytest.raises(ConfigError, match="is damaged"):
        Revocations(tmp_path, lambda: NOON)
    assert mine.current.serials == {7}
    assert (tmp_path / "revocations.json").read_text() == contents
