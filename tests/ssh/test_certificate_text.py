"""The text of a certificate, compared with the output of ssh-keygen."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from conchrec.ssh.certificate import FOREVER, SK_ECDSA, decode
from conchrec.ssh.certificate_text import listing
from tests.support.keys import Key, sign_host, sign_user
from tests.support.logins import key, user_certificate
from tests.support.process import environment, run
from tests.support.stage import Stage

OPTIONS = [
    *("-O", "source-address=10.0.0.0/8,fd00::/8", "-O", "verify-required", "-O", "force-command=/bin/true"),
    *(
        "-O",
        "critical:flag@x",
        "-O",
        "critical:x@y=abc",
        "-O",
        "extension:foo@bar",
        "-O",
        "no-touch-required",
    ),
    *("-O", "no-x11-forwarding", "-z", "7"),
]


async def compare(key: Key) -> None:
    assert key.certificate is not None
    line = key.certificate.read_bytes()
    printed = (await run("ssh-keygen", "-L", "-f", "-", stdin=line, env=environment(TZ="UTC"))).check().text
    lines = listing(decode(base64.b64decode(line.split()[1])))
    assert "".join(f"{line}\n" for line in ("(stdin):1:", *lines)) == printed


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
async def test_prints_user_certificate_like_ssh_keygen(stage: Stage, kind: str) -> None:
    authority = await stage.key("authority", kind if kind != "rsa" else "ed25519")
    for options in (OPTIONS, ["-O", "clear"], ["-V", "20260101:20360101"], ["-V", "always:20360101"]):
        await compare(await sign_user(authority, await stage.key("joe", kind), "joe", "joe,root", *options))


async def test_prints_host_certificate_like_ssh_keygen(stage: Stage) -> None:
    authority = await stage.key("authority")
    await compare(await sign_host(authority, await stage.key("host"), "web1", "-V", "20260101:forever"))


def test_prints_malformed_fields() -> None:
    """Malformed fields are printed and do not raise."""
    odd = {"source-address": b"\0\0", "verify-required": b"x"}
    it = decode(user_certificate(key(), critical_options=odd))
    it = replace(it, valid_after=2**63, valid_before=FOREVER - 1, authority=b"", signature=b"", principals=())
    printed = "\n".join(listing(it))
    assert "source-address UNKNOWN OPTION: 0000 (len 2)" in printed
    assert "verify-required UNKNOWN OPTION: 78 (len 1)" in printed
    assert f"from {2**63} seconds after 1970 to {FOREVER - 1} seconds after 1970" in printed
    assert "Signing CA: UNKNOWN SHA256:" in printed and "(using unknown)" in printed
    assert "Principals: (none)" in printed


def test_prints_type_of_hardware_key() -> None:
    it = replace(decode(user_certificate(key())), algorithm=SK_ECDSA.replace(b"@", b"-cert-v01@"))
    assert "Public key: ECDSA-SK-CERT " in "\n".join(listing(it))
