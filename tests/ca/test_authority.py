"""The authorities' keys: made once, read again, kept to ourselves; and serial numbers, each of them new."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec.ca import authority as module
from conchrec.ca.authority import BACKDATED, INNER_TTL, Authority, CaKind
from conchrec.ca.revocation import Revoked
from conchrec.errors import CertificateRejected, ConfigError
from conchrec.ssh.certificate import CERTIFICATE, Certificate, CertificateKind, decode, public_line
from conchrec.ssh.certificate_checks import check_host, check_user
from tests.support.keys import keygen

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
ED = b"ssh-ed25519"
ED_CERT = ED + CERTIFICATE
ROOT = Path(__file__).parents[2]
KEYS = ("user_ca", "host_ca", "host_key")


class Now:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def opened(state: Path, now: Now | None = None) -> Authority:
    return Authority.open(state, "example.com", now=now or Now())


def listed(certificate: Certificate, directory: Path) -> list[str]:
    """As ssh-keygen reads it."""
    path = directory / "listed-cert.pub"
    path.write_text(public_line(certificate.blob) + "\n")
    return [line.strip() for line in keygen("-L", "-f", path).splitlines()]


# --- keys


def test_creates_keys_once_and_reads_them_again(state: Path) -> None:
    first = opened(state)
    assert first.created == (state, *(state / name for name in KEYS))
    again = opened(state)
    assert again.created == ()
    assert again.user_ca_public == first.user_ca_public != first.host_ca_public == again.host_ca_public
    shown = [authority.inner_host_keys("web1").get(ED).blob() for authority in (first, again)]
    assert shown[0] == shown[1] not in (first.user_ca_public, first.host_ca_public)


def test_protects_private_keys(state: Path) -> None:
    opened(state)
    assert state.stat().st_mode & 0o777 == 0o700
    for name in KEYS:
        assert (state / name).stat().st_mode & 0o777 == 0o600
        assert (state / f"{name}.pub").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in state.iterdir()) == sorted(
        [".lock", *KEYS, *(f"{name}.pub" for name in KEYS)]
    )


@pytest.mark.parametrize("name", KEYS)
def test_writes_keys_that_ssh_keygen_reads(state: Path, name: str) -> None:
    mine = opened(state)
    public = keygen("-y", "-f", state / name).split()[:2]
    assert public == (state / f"{name}.pub").read_text().split()[:2]
    if name == "user_ca":
        assert mine.public_lines(CaKind.USER) == " ".join(public) + " conchrec user CA of example.com\n"
    if name == "host_ca":
        assert mine.host_ca_line == " ".join(public) + " conchrec host CA of example.com"


def test_accepts_key_of_ssh_keygen(state: Path) -> None:
    """Somebody who has an authority already brings it along."""
    state.mkdir(mode=0o700)
    keygen("-q", "-t", "ed25519", "-N", "", "-C", "ours", "-f", state / "user_ca")
    mine = opened(state)
    assert public_line(mine.user_ca_public) == " ".join((state / "user_ca.pub").read_text().split()[:2])
    assert state / "user_ca" not in mine.created


def test_creates_and_reports_missing_key(state: Path) -> None:
    first = opened(state)
    (state / "host_ca").unlink()
    (state / "host_ca.pub").unlink()
    second = opened(state)
    assert second.created == (state / "host_ca",)
    assert second.user_ca_public == first.user_ca_public
    assert second.host_ca_public != first.host_ca_public


@pytest.mark.parametrize("name", ["user_ca", "host_ca"])
def test_refuses_to_replace_lost_private_key(state: Path, name: str) -> None:
    """Whoever trusts the old one would be locked out, and nobody would know why."""
    opened(state)
    (state / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}.pub exists, but the private key"):
        opened(state)
    assert not (state / name).exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-t", "ed25519", "-N", "secret"), "has a passphrase, but there is no terminal to ask for it"),
        (("-t", "rsa", "-b", "2048", "-N", ""), "is not an ed25519 key"),
        (("-t", "ecdsa", "-N", ""), "is not an ed25519 key"),
    ],
)
def test_rejects_unsuitable_keys(state: Path, options: tuple[str, ...], problem: str) -> None:
    state.mkdir(mode=0o700)
    keygen("-q", *options, "-f", state / "user_ca")
    with pytest.raises(ConfigError, match=problem) as caught:
        opened(state)
    assert str(state / "user_ca") in str(caught.value)
    assert caught.value.path == "state_dir"


@pytest.mark.parametrize(
    "contents", [b"", b"rubbish", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\xff" * 99]
)
def test_keeps_invalid_key_file_unchanged(state: Path, contents: bytes) -> None:
    opened(state)
    (state / "host_ca").write_bytes(contents)
    with pytest.raises(ConfigError, match="is damaged: not an OpenSSH private key"):
        opened(state)
    assert (state / "host_ca").read_bytes() == contents


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_rejects_key_readable_by_others(state: Path, mode: int) -> None:
    opened(state)
    (state / "user_ca").chmod(mode)
    with pytest.raises(ConfigError, match=r"other accounts can read .*; run: chmod 600"):
        opened(state)


def test_rejects_directory_in_place_of_key(state: Path) -> None:
    (state / "user_ca").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        opened(state)


def test_reports_unwritable_state_dir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        opened(tmp_path / "file" / "state")


# --- several processes


OPEN = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from conchrec.ca.authority import Authority, CaKind
authority = Authority.open(Path(sys.argv[1]), "example.com", now=lambda: datetime.now(timezone.utc))
print(authority.public_lines(CaKind.USER), end="")
key = authority.host_ca_public
for _ in range(int(sys.argv[2])):
    print(authority.sign_host(key, ["web1"], authority_ttl).serial)
""".replace("authority_ttl", "__import__('datetime').timedelta(days=1)")


def together(state: Path, processes: int, serials: int) -> list[list[str]]:
    """What so many processes say that begin at the same time."""
    command = (sys.executable, "-c", OPEN, str(state), str(serials))
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0] * processes
    return outputs


def test_shares_keys_of_simultaneous_first_starts(state: Path) -> None:
    outputs = together(state, 4, 0)
    assert len({lines[0] for lines in outputs}) == 1
    assert outputs[0][0] == opened(state).public_lines(CaKind.USER).rstrip()


def test_gives_random_serial_numbers(state: Path) -> None:
    """Processes need not agree on them, and a backup that is restored does not repeat them."""
    outputs = together(state, 2, 100)
    serials = [int(number) for lines in outputs for number in lines[1:]]
    assert len(set(serials)) == len(serials) == 200
    assert all(0 < serial < 2**63 for serial in serials)
    assert max(serials) > 2**60, "this fails once in 10^19 runs"
    assert not (state / "serial").exists()


# --- certificates


def test_signs_certificate_for_connection(state: Path, tmp_path: Path) -> None:
    mine = opened(state)
    signer, certificate = mine.one_connection("root", "joe", "c0ffee")
    lines = listed(certificate, tmp_path)
    assert "Type: ssh-ed25519-cert-v01@openssh.com user certificate" in lines
    assert 'Key ID: "conchrec user=joe connection=c0ffee"' in lines
    assert "Valid: from 2026-11-23T11:55:00 to 2026-11-23T12:10:00" in lines
    assert lines[lines.index("Principals:") :] == [
        "Principals:", "root", "Critical Options: (none)", "Extensions:",
        "permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty",
        "permit-user-rc",
    ]  # fmt: skip
    assert signer.blob == certificate.blob
    check_user(certificate, authorities=(mine.user_ca_public,), now=NOON, source="192.0.2.1")
    # A fresh key each time, and nothing of it on the disk.
    _, other = mine.one_connection("root", "joe", "c0ffee")
    assert other.public_key != certificate.public_key
    assert sorted(path.name for path in state.iterdir()) == sorted(
        [".lock", *KEYS, *(f"{name}.pub" for name in KEYS)]
    )


@pytest.mark.parametrize("login", ["", "a,b", "a\nb", "\x1b[31m", "x" * 300])
def test_refuses_certificate_for_invalid_login(state: Path, login: str) -> None:
    with pytest.raises(CertificateRejected, match="invalid principal"):
        opened(state).one_connection(login, "joe", "c0ffee")


def test_signs_user_and_host_certificates(state: Path, tmp_path: Path) -> None:
    mine = opened(state)
    key = mine.inner_host_keys("x").get(ED).blob()
    user = mine.sign_user(key, principals=("root", "www"), key_id="joe", ttl=timedelta(hours=12))
    assert (user.kind, user.key_id, user.principals) == (CertificateKind.USER, "joe", ("root", "www"))
    assert "Valid: from 2026-11-23T11:55:00 to 2026-11-24T00:00:00" in listed(user, tmp_path)
    host = mine.sign_host(key, ("Web1.Example.com", "web1", "192.0.2.1", "WEB1"), timedelta(days=90))
    lines = listed(host, tmp_path)
    assert "Type: ssh-ed25519-cert-v01@openssh.com host certificate" in lines
    assert 'Key ID: "web1.example.com node of example.com"' in lines
    assert host.principals == ("web1.example.com", "web1", "192.0.2.1")
    for name in ("web1", "192.0.2.1"):
        check_host(host, authorities=(mine.host_ca_public,), name=name, now=NOON)
    with pytest.raises(CertificateRejected):
        check_host(host, authorities=(mine.user_ca_public,), name="web1", now=NOON)
    with pytest.raises(CertificateRejected, match="invalid principal"):
        mine.sign_host(key, (), timedelta(1))


# --- what our servers show


def test_returns_host_certificate_for_requested_name(state: Path) -> None:
    mine = opened(state)
    shown = mine.inner_host_keys("web1")
    assert shown.algorithms == (ED_CERT, ED)
    certificate = decode(shown.get(ED_CERT).blob())
    assert certificate.principals == ("web1",)
    assert certificate.public_key == shown.get(ED).blob()
    assert certificate.key_id == "web1 proxy of example.com"
    check_host(certificate, authorities=(mine.host_ca_public,), name="web1", now=NOON)
    outer = decode(mine.outer_host_keys(("proxy.example.com", "127.0.0.1")).get(ED_CERT).blob())
    assert outer.principals == ("proxy.example.com", "127.0.0.1")


def test_caches_host_certificate_for_half_its_validity(state: Path, now: Now) -> None:
    mine = opened(state, now)
    first = mine.inner_host_keys("web1")
    assert mine.inner_host_keys("web2") is not first
    now.moment += INNER_TTL / 2 - timedelta(seconds=1)
    assert mine.inner_host_keys("web1") is first
    now.moment += timedelta(seconds=1)
    second = mine.inner_host_keys("web1")
    assert second is not first
    certificate = decode(second.get(ED_CERT).blob())
    assert certificate.valid_after == int((now.moment - BACKDATED).timestamp())
    assert certificate.valid_before == int((now.moment + INNER_TTL).timestamp())


def test_returns_plain_host_key_for_invalid_name(state: Path) -> None:
    assert opened(state).inner_host_keys("x" * 300).algorithms == (ED,)


def test_bounds_cache_of_host_certificates(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_NAMES", 3)
    mine = opened(state)
    shown = [mine.inner_host_keys(name) for name in ("a", "b", "c")]
    assert mine.inner_host_keys("a") is shown[0]
    mine.inner_host_keys("d")
    assert mine.inner_host_keys("a") is shown[0]
    assert mine.inner_host_keys("b") is not shown[1]
    assert mine.inner_host_keys("c") is not shown[2], "removed for b"


def test_creates_krl_once_per_change(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask for it as often as they like."""
    authority = opened(state)
    made: list[Revoked] = []
    make = Revoked.krl

    def krl(self: Revoked, authorities: Iterable[bytes]) -> bytes:
        made.append(self)
        return make(self, authorities)

    monkeypatch.setattr(Revoked, "krl", krl)
    first = authority.krl()
    assert authority.krl() is first and len(made) == 1
    authority.revocations.change(add=Revoked(serials=frozenset({7})))
    assert authority.krl() != first and len(made) == 2
    # Another process has written the file.
    opened(state).revocations.change(add=Revoked(serials=frozenset({8})))
    authority.krl()
    assert len(made) == 3 and made[-1].serials == {7, 8}
    authority.krl()
    assert len(made) == 3
