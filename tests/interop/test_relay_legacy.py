"""Targets that have nothing better than SHA-1, CBC or DSA: only by their rule, and the audit says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.client import Person
from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.process import environment
from tests.support.sshd import Sshd
from tests.support.stage import Stage
from tests.support.wait import block

LEGACY = {"targets": {"old": {"hosts": ["localhost"], "algorithms": "legacy"}}}


@pytest.fixture(scope="module")
def anywhere(shared_stage: Stage) -> House:
    """``localhost`` is old, as its rule says; ``127.0.0.1`` is the same host without a rule."""
    return block(build(shared_stage, settings={"proxy_checks_host_keys": False, **LEGACY}))


async def works(house: House, target: Sshd, *weak: str, person: Person | None = None) -> None:
    """Bytes go there and come back, and the audit names what is weak about it."""
    contents = os.urandom(200_000)
    client = house.client(target=target, person=person)
    result = await client.ssh("web1", "cat; exit 3", stdin=contents)
    assert (result.stdout == contents, result.code) == (True, 3), str(result)
    (*_, event) = house.proxy.audit("upstream.connect", target=f"localhost:{target.port}")
    assert event.get("weak", []) == list(weak)
    algorithms = event["algorithms"]
    assert isinstance(algorithms, list)
    assert set(weak) <= set(algorithms)


async def refused_without_a_rule(house: House, target: Sshd, what: str) -> None:
    result = await house.client(target=target, host="127.0.0.1").ssh("web1", "true")
    assert result.code == 255
    assert f"no common {what} algorithm: the other side offers" in result.errors
    assert "ask your administrator to set `algorithms: legacy` for it (targets)" in result.errors


@pytest.mark.parametrize("exchange", ["diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"])
async def test_uses_legacy_key_exchanges_by_rule(anywhere: House, exchange: str) -> None:
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=[f"KexAlgorithms {exchange}"])
    await works(anywhere, target, exchange)
    await refused_without_a_rule(anywhere, target, "key exchange")


@pytest.mark.parametrize("mac", ["hmac-sha1", "hmac-sha2-256", "hmac-sha2-512-etm@openssh.com"])
@pytest.mark.parametrize("cipher", ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"])
async def test_uses_legacy_ciphers_by_rule(anywhere: House, cipher: str, mac: str) -> None:
    lines = (f"Ciphers {cipher}", f"MACs {mac}", "RekeyLimit 64K")
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=lines)
    await works(anywhere, target, cipher, *(["hmac-sha1"] if mac == "hmac-sha1" else []))
    if mac == "hmac-sha1":
        await refused_without_a_rule(anywhere, target, "cipher")


async def test_uses_legacy_macs_by_rule(anywhere: House) -> None:
    lines = ("Ciphers aes256-ctr", "MACs hmac-sha1")
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=lines)
    await works(anywhere, target, "hmac-sha1")
    await refused_without_a_rule(anywhere, target, "MAC")


async def test_accepts_sha1_host_keys_by_rule(anywhere: House) -> None:
    key = await anywhere.stage.key("host", "rsa")
    target = await anywhere.stage.sshd(
        users=[anywhere.joe.key], host_keys=[key], more=["HostKeyAlgorithms ssh-rsa"]
    )
    await works(anywhere, target, "ssh-rsa")
    await refused_without_a_rule(anywhere, target, "host key")


async def test_prefers_modern_algorithms_despite_rule(anywhere: House) -> None:
    await works(anywhere, await anywhere.stage.sshd(users=[anywhere.joe.key]))


#: A target as old ones are: a DSA key, no extension info (so nobody knows of SHA-2), and RSA keys of users
#: are taken with SHA-1 alone.
OLD = """
import asyncio, sys, asyncssh
from asyncssh.connection import SSHServerConnection

port, user_key = int(sys.argv[1]), asyncssh.import_public_key(sys.argv[2])
SSHServerConnection._send_ext_info = lambda self: None

class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True
    def public_key_auth_supported(self):
        return True
    def validate_public_key(self, username, key):
        return key == user_key

async def command(process):
    process.stdout.write(await process.stdin.read())
    process.exit(3)

async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", port, server_host_keys=[asyncssh.generate_private_key("ssh-dss")],
        process_factory=command, encoding=None, signature_algs=["ssh-rsa"],
        kex_algs=["diffie-hellman-group1-sha1"], encryption_algs=["3des-cbc"], mac_algs=["hmac-sha1"],
    )
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_connects_to_host_with_legacy_algorithms_only(anywhere: House, tmp_path: Path) -> None:
    """DSA, 3DES, a group of 1024 bits, and RSA with SHA-1 for the login, all at once."""
    stage = anywhere.stage
    key = await stage.key("joe", "rsa")
    agent = await stage.agent(anywhere.joe.key, key)
    port = free_port()
    script = stage.file("old.py", OLD)
    server = stage.process(sys.executable, script, str(port), key.line, env=environment())
    await server.says(b"ready")
    target = Sshd(host="127.0.0.1", port=port, directory=tmp_path, host_keys=(), process=server)
    joe = Person(name="joe", key=anywhere.joe.key, agent=agent)
    weak = ("diffie-hellman-group1-sha1", "ssh-dss", "3des-cbc", "hmac-sha1")
    await works(anywhere, target, *weak, person=joe)
