"""What `curl` gets from a running proxy is what targets and users trust."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.client import AccessMethod
from tests.support.house import build
from tests.support.ports import free_port
from tests.support.process import run
from tests.support.stage import Stage


def tls(directory: Path) -> tuple[Path, Path]:
    """A key, and a certificate for localhost that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "key.pem", directory / "cert.pem"
    paths[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].write_bytes(certificate.public_bytes(Encoding.PEM))
    return paths


async def test_serves_keys_that_targets_and_users_trust(stage: Stage) -> None:
    """Over HTTPS, into TrustedUserCAKeys, RevokedKeys and known_hosts; and over HTTP the same."""
    plain, secure = free_port(), free_port()
    key, certificate = tls(stage.path("tls/none").parent)
    listen = [
        f"tcp:{plain}:interface=127.0.0.1",
        f"ssl:{secure}:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
    ]
    krl = stage.path("krl")
    krl.write_bytes(b"")
    house = await build(stage, settings={"web": {"listen": listen}}, sshd=[f"RevokedKeys {krl}"])
    export = f"https://localhost:{secure}/webapi/auth/export"

    async def curl(kind: str, out: Path, *more: str | Path) -> str:
        url = f"{export}?type={kind}"
        done = await run("curl", "-sSf", "--cacert", certificate, "-o", out, *more, "-w", "%{http_code}", url)
        return done.check().text

    trusted = stage.path(f"{house.proxy.directory.name}/user_ca.pub")
    assert await curl("user", trusted) == "200"
    assert trusted.read_text() == await house.proxy.authority("user")
    assert await curl("host", stage.path("known_hosts")) == "200"
    house.authority = stage.path("known_hosts").read_text()
    assert await curl("krl", krl) == "200"
    client = house.client(AccessMethod.CERTIFICATE)
    assert (await client.ssh("web1", "echo there")).check().text == "there\n"

    # Kept until it changes: a rotation and a revocation show at once.
    etag = stage.path("etag")
    assert await curl("user", trusted, "--etag-save", etag) == "200"
    assert await curl("user", trusted, "--etag-compare", etag) == "304"
    (await house.proxy.command("ca", "rotate", "--type", "user", "--phase", "init")).check()
    assert await curl("user", trusted, "--etag-compare", etag) == "200"
    assert len(trusted.read_text().splitlines()) == 2
    (await house.proxy.command("ca", "revoke", "--serial", "7")).check()
    await curl("krl", krl)
    listed = (await run("ssh-keygen", "-Q", "-l", "-f", krl)).check().text
    assert "serial: 7\n" in listed

    http = await run("curl", "-sSf", f"http://127.0.0.1:{plain}/webapi/auth/export?type=user")
    assert http.check().text == trusted.read_text()
    old = await run("curl", "-sS", "--tls-max", "1.1", "--cacert", certificate, f"{export}?type=user")
    assert old.code == 35, str(old)  # it could not agree on a version


async def test_fails_start_with_invalid_certificate(stage: Stage) -> None:
    """The proxy does not start, and says which file."""
    rubbish = stage.file("rubbish.pem", "rubbish\n")
    for files, text in (
        (f"privateKey={rubbish}:certKey={rubbish}", "listen"),
        (f"privateKey={rubbish}.none:certKey={rubbish}", "No such file"),
    ):
        house = await build(stage, settings={"web": {"listen": [f"ssl:{free_port()}:{files}"]}}, start=False)
        result = await house.proxy.launch().wait()
        assert result.code == 78, str(result)
        assert text in result.errors
        assert "rubbish" in result.errors
        checked = await house.proxy.command("config", "check")
        assert checked.code == 78
        assert "web.listen[0]" in checked.errors
