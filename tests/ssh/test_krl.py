"""Key revocation lists: compatibility with ssh-keygen in both directions, and malformed lists."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.ssh.certificate import Certificate, CertificateKind, Ed25519Authority, issue
from conchrec.ssh.krl import (
    MAX_BITMAP,
    MAX_SERIAL,
    InvalidKrl,
    Krl,
    RevokedCertificates,
    decode,
    encode,
    revokes,
)
from conchrec.ssh.wire import string, uint32, uint64
from tests.support.process import environment, program

CA, OTHER = (Ed25519Authority(ed25519.Ed25519PrivateKey.generate()) for _ in range(2))


def blob() -> bytes:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return string(b"ssh-ed25519") + string(public.public_bytes_raw())


KEYS = (blob(), blob())


def certificate(serial: int, key_id: str = "joe", *, authority: Ed25519Authority = CA) -> Certificate:
    return issue(
        authority=authority,
        public_key=KEYS[0],
        kind=CertificateKind.USER,
        serial=serial,
        key_id=key_id,
        principals=("root",),
        valid_after=0,
        valid_before=2**40,
    )


# --- our lists


serials = st.integers(1, MAX_SERIAL)
ranges = st.lists(st.tuples(serials, serials).map(lambda pair: (min(pair), max(pair))), max_size=6)
small = st.lists(st.integers(1, 60).map(lambda number: (number, number)), max_size=40)
values = st.builds(
    Krl,
    krl_version=st.integers(0, MAX_SERIAL),
    generated=st.integers(0, MAX_SERIAL),
    comment=st.text(max_size=9),
    certificates=st.lists(
        st.builds(
            RevokedCertificates,
            authority=st.sampled_from([b"", CA.blob]),
            serials=st.one_of(ranges, small).map(tuple),
            key_ids=st.lists(st.text(max_size=9), max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    keys=st.frozensets(st.binary(max_size=40), max_size=3),
    sha1=st.frozensets(st.binary(min_size=20, max_size=20), max_size=2),
    sha256=st.frozensets(st.binary(min_size=32, max_size=32), max_size=2),
)


def numbers(pairs: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Merge ranges slowly, two at a time, as a reference."""
    left = sorted(pairs)
    while left:
        first, last = left.pop(0)
        while left and left[0][0] <= last + 1:
            last = max(last, left.pop(0)[1])
        yield first, last


@given(values)
def test_round_trips_any_list(krl: Krl) -> None:
    again = decode(encode(krl))
    assert (again.krl_version, again.generated, again.comment) == (
        krl.krl_version, krl.generated, krl.comment,
    )  # fmt: skip
    assert (again.keys, again.sha1, again.sha256) == (krl.keys, krl.sha1, krl.sha256)
    for decoded, revoked in zip(again.certificates, krl.certificates, strict=True):
        assert decoded.authority == revoked.authority
        assert decoded.serials == tuple(numbers(revoked.serials))
        assert decoded.key_ids == tuple(sorted(set(revoked.key_ids)))
    assert encode(again) == encode(krl)


def test_encodes_range_in_constant_size() -> None:
    assert len(encode(Krl(certificates=(RevokedCertificates(serials=((1, MAX_SERIAL),)),)))) < 100


def test_revokes_certificates_and_keys() -> None:
    revoked_certificate = certificate(5)
    for krl, revoked in (
        (Krl(), False),
        (Krl(certificates=(RevokedCertificates(serials=((5, 5),)),)), True),
        (Krl(certificates=(RevokedCertificates(authority=CA.blob, serials=((1, 9),)),)), True),
        (Krl(certificates=(RevokedCertificates(authority=OTHER.blob, serials=((1, 9),)),)), False),
        (Krl(certificates=(RevokedCertificates(serials=((1, 4), (6, 9))),)), False),
        (Krl(certificates=(RevokedCertificates(key_ids=("ann", "joe")),)), True),
        (Krl(certificates=(RevokedCertificates(authority=OTHER.blob, key_ids=("joe",)),)), False),
        (Krl(keys=frozenset({KEYS[0]})), True),
        (Krl(keys=frozenset({KEYS[1]})), False),
        (Krl(keys=frozenset({CA.blob})), True),
    ):
        assert revokes(krl, revoked_certificate.blob) is revoked
    assert revokes(Krl(keys=frozenset({KEYS[0]})), KEYS[0])
    assert not revokes(Krl(certificates=(RevokedCertificates(key_ids=("joe",)),)), KEYS[0])


# --- lists of ssh-keygen


def keygen(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = (program("ssh-keygen"), *map(str, arguments))
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a CA and two keys."""
    directory = tmp_path_factory.mktemp("krl")
    for name in ("ca", "key", "other"):
        assert keygen("-q", "-t", "ed25519", "-N", "", "-f", directory / name).returncode == 0
    return directory


def signed(made: Path, serial: int, key_id: str = "joe") -> bytes:
    options = ("-q", "-s", made / "ca", "-I", key_id, "-n", "root", "-z", str(serial))
    assert keygen(*options, made / "key.pub").returncode == 0
    return base64.b64decode((made / "key-cert.pub").read_text().split()[1])


def plain(made: Path, name: str) -> bytes:
    return base64.b64decode((made / f"{name}.pub").read_text().split()[1])


@pytest.mark.parametrize(
    ("lines", "revoked", "good"),
    [
        (["serial: 7"], [7], [6, 8]),
        (["serial: 7", "serial: 9", "serial: 2000"], [7, 9, 2000], [8, 10, 1999]),
        (["serial: 10-1000000000000"], [10, 5_000_000_000], [9, 1000000000001]),
        # ssh-keygen encodes dense numbers as a bitmap.
        ([f"serial: {number}" for number in range(1, 200, 2)], [1, 99, 199], [2, 100, 198, 200, 201]),
        (
            [f"serial: {number}" for number in (*range(5, 90, 3), *range(1000, 1100, 5))],
            [5, 89, 1095],
            [6, 90],
        ),
    ],
)
def test_reads_serials_of_ssh_keygen(
    made: Path, tmp_path: Path, lines: list[str], revoked: list[int], good: list[int]
) -> None:
    (tmp_path / "spec").write_text("\n".join(lines) + "\n")
    done = keygen("-q", "-k", "-f", tmp_path / "krl", "-s", made / "ca.pub", "-z", "42", tmp_path / "spec")
    assert done.returncode == 0, done.stderr
    krl = decode((tmp_path / "krl").read_bytes())
    assert krl.krl_version == 42
    for serial in revoked:
        assert revokes(krl, signed(made, serial))
    for serial in good:
        assert not revokes(krl, signed(made, serial))
    # And back: ssh-keygen lists the same numbers in both files.
    (tmp_path / "again").write_bytes(encode(krl))
    first, second = (keygen("-Q", "-l", "-f", tmp_path / name).stdout for name in ("krl", "again"))
    assert [line for line in first.splitlines() if line.startswith("serial")] == [
        line for line in second.splitlines() if line.startswith("serial")
    ]


@pytest.mark.parametrize("kind", ["key", "sha1", "sha256", "hash", "id"])
def test_reads_other_sections_of_ssh_keygen(made: Path, tmp_path: Path, kind: str) -> None:
    key = (made / "key.pub").read_text().strip()
    fingerprint = keygen("-l", "-f", made / "key.pub").stdout.split()[1]
    line = {"hash": f"hash: {fingerprint}", "id": "id: joe"}.get(kind, f"{kind}: {key}")
    (tmp_path / "spec").write_text(line + "\n")
    done = keygen("-q", "-k", "-f", tmp_path / "krl", "-s", made / "ca.pub", tmp_path / "spec")
    assert done.returncode == 0, done.stderr
    krl = decode((tmp_path / "krl").read_bytes())
    assert revokes(krl, signed(made, 1))
    assert revokes(krl, signed(made, 1, "ann")) is (kind != "id")
    assert revokes(krl, plain(made, "key")) is (kind != "id")
    assert not revokes(krl, plain(made, "other"))


def test_agrees_with_ssh_keygen(made: Path, tmp_path: Path) -> None:
    """Ten thousand serial numbers, single and in ranges, and the other sections."""
    scattered = tuple((number, number) for number in range(3, 30_000, 3))
    krl = Krl(
        krl_version=7,
        generated=1_764_000_000,
        comment="of the tests",
        certificates=(
            RevokedCertificates(
                authority=plain(made, "ca"), serials=(*scattered, (10**6, 10**12)), key_ids=("ann",)
            ),
        ),
        keys=frozenset({plain(made, "other")}),
    )
    (tmp_path / "krl").write_bytes(encode(krl))
    serials_and_ids = [
        (serial, "joe") for serial in (1, 3, 4, 29_997, 29_998, 10**6 - 1, 10**6, 10**12, 10**12 + 1)
    ]
    for serial, key_id in (*serials_and_ids, (1, "ann")):
        revoked_certificate = signed(made, serial, key_id)
        (tmp_path / "one.pub").write_text((made / "key-cert.pub").read_text())
        verdict = keygen("-Q", "-f", tmp_path / "krl", tmp_path / "one.pub")
        assert (
            ("REVOKED" in verdict.stdout) is (verdict.returncode == 1) is revokes(krl, revoked_certificate)
        ), verdict
    assert "REVOKED" in keygen("-Q", "-f", tmp_path / "krl", made / "other.pub").stdout
    assert "ok" in keygen("-Q", "-f", tmp_path / "krl", made / "key.pub").stdout
    listed = keygen("-Q", "-l", "-f", tmp_path / "krl").stdout
    assert "KRL version 7" in listed
    assert "of the tests" in listed


# --- malformed lists


def krl_with(section: int, contents: bytes) -> bytes:
    return encode(Krl()) + bytes((section,)) + string(contents)


def certificates_with(kind: int, contents: bytes) -> bytes:
    return krl_with(1, string(b"") + string(b"") + bytes((kind,)) + string(contents))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSHKRL\n",
        b"SSHKRL\n\1" + bytes(40),
        encode(Krl())[:-1],
        encode(Krl()).replace(uint32(1), uint32(2), 1),
        encode(Krl()) + b"\7",
        krl_with(7, b""),
        krl_with(3, string(bytes(19))),
        krl_with(5, string(bytes(20))),
        krl_with(255, string(b"x") + b"\1" + string(b"")),
        certificates_with(0x20, bytes(7)),
        certificates_with(0x20, uint64(0)),
        certificates_with(0x21, uint64(9) + uint64(3)),
        certificates_with(0x21, uint64(1) + uint64(3) + b"x"),
        certificates_with(0x22, uint64(1) + string(b"\1" * (MAX_BITMAP + 1))),
        certificates_with(0x22, uint64(MAX_SERIAL) + string(b"\1")),
        certificates_with(0x39, string(b"x") + b"\1" + string(b"")),
        certificates_with(0x40, b""),
    ],
)
def test_rejects_malformed_list(data: bytes) -> None:
    with pytest.raises(RemoteViolation):
        decode(data)


def test_skips_signature_and_noncritical_extensions() -> None:
    """A signature section, which no program writes any more, and extensions that are not critical."""
    for data in (
        krl_with(4, b"anything"),
        krl_with(255, string(b"x") + b"\0" + string(b"y")),
        certificates_with(0x39, string(b"x") + b"\0" + string(b"y")),
    ):
        assert not revokes(decode(data), certificate(1).blob)


def test_reads_large_bitmap_and_rejects_larger_one() -> None:
    ones = certificates_with(0x22, uint64(1) + string(b"\xff" * MAX_BITMAP))
    assert decode(ones).certificates[0].serials == ((1, 8 * MAX_BITMAP),)
    with pytest.raises(InvalidKrl, match="too long"):
        decode(certificates_with(0x22, uint64(1) + string(b"\xff" * (MAX_BITMAP + 1))))
