"""Every cipher that we offer, new keys in the middle of a stream, and targets that know little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conchrec.service.process import knows_aes
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.keys import Key
from tests.support.sshd import Sshd
from tests.support.stage import Stage
from tests.support.wait import block, together

CIPHERS = (
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
PLAIN_MACS = ("hmac-sha2-256", "hmac-sha2-512")
EXCHANGES = ("ecdh-sha2-nistp256", "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")


@pytest.fixture(scope="module")
def anywhere(shared_stage: Stage) -> House:
    """Targets come and go, each with the same host key."""
    return block(build(shared_stage, settings={"proxy_checks_host_keys": False, "algorithms": "compatible"}))


async def works(house: House, *, more: str = "", target: Sshd | None = None, size: int = 200_000) -> None:
    """Bytes go there and come back, with these words for every hop."""
    contents = os.urandom(size)
    result = await house.client(more=more, target=target).ssh("web1", "cat; exit 3", stdin=contents)
    assert (result.stdout == contents, result.code) == (True, 3), str(result)


@pytest.mark.parametrize("cipher", CIPHERS)
async def test_uses_each_cipher(anywhere: House, cipher: str) -> None:
    """Of the user's connections, and of the one to the target."""
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=[f"Ciphers {cipher}"])
    await works(anywhere, more=f"Ciphers {cipher}", target=target)


@pytest.mark.parametrize("mac", MACS + PLAIN_MACS)
async def test_uses_each_mac(anywhere: House, mac: str) -> None:
    lines = ["Ciphers aes128-ctr", f"MACs {mac}"]
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=lines)
    await works(anywhere, more="\n".join(lines), target=target)


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_uses_each_key_exchange(anywhere: House, exchange: str) -> None:
    lines = [f"KexAlgorithms {exchange}"]
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=lines)
    await works(anywhere, more=lines[0], target=target)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
async def test_accepts_each_host_key_type(anywhere: House, kind: str) -> None:
    key: Key = await anywhere.stage.key("host", kind)
    await works(anywhere, target=await anywhere.stage.sshd(users=[anywhere.joe.key], host_keys=[key]))


async def test_compresses_on_request(anywhere: House) -> None:
    await works(anywhere, more="Compression yes")
    await works(anywhere, more="Compression yes\n  RekeyLimit 64K")


@pytest.mark.parametrize("where", ["outer", "inner", "target"])
async def test_rekeys_on_both_connections_during_transfer(
    anywhere: House, where: str, tmp_path: Path
) -> None:
    """Each end of each connection asks for new keys after every megabyte, both ways at once."""
    sshd = ["RekeyLimit 1M"] if where == "target" else []
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=sshd)
    more = "Host proxy\n    RekeyLimit 1M\nHost *" if where == "outer" else ""
    client = anywhere.client(target=target, more=more, inner="    RekeyLimit 1M" if where == "inner" else "")
    contents, back = tmp_path / "contents", tmp_path / "back"
    contents.write_bytes(os.urandom(12_000_000))
    result = await client.ssh("web1", "cat", stdin=contents, stdout=back, within=180)
    assert result.code == 0, str(result)
    assert back.read_bytes() == contents.read_bytes()


@pytest.mark.parametrize("limit", ["16", "256k"])
@pytest.mark.parametrize("where", ["client", "target"])
async def test_rekeys_after_few_bytes(anywhere: House, where: str, limit: str) -> None:
    """regress/rekey.sh: new keys after 16 bytes. The peer that asks for so many waits, and goes on."""
    lines = [f"RekeyLimit {limit}"]
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=lines if where == "target" else [])
    await works(anywhere, more=lines[0] if where == "client" else "", target=target, size=120_000)


@pytest.mark.parametrize("offer", ["", "Ciphers chacha20-poly1305@openssh.com"])
async def test_keeps_cipher_of_large_transfer(anywhere: House, tmp_path: Path, offer: str) -> None:
    """OpenSSH prefers ChaCha20. On a processor with AES, the proxy offers it only AES-GCM."""
    text, back = anywhere.stage.path("much"), tmp_path / "back"
    text.write_bytes(os.urandom(40_000_000))
    cipher = "aes128-gcm" if not offer and knows_aes() else "chacha20"
    for method in (AccessMethod.INNER_AGENT, AccessMethod.SUBSYSTEM):
        client = anywhere.client(method, more=f"{offer}\nRekeyLimit 16M")
        result = await client.ssh("-v", "web1", f"cat {text}", stdout=back, within=180)
        assert result.code == 0, str(result)
        assert back.read_bytes() == text.read_bytes()
        lines = [line for line in result.errors.splitlines() if "server->client cipher" in line]
        assert len(lines) >= 3 and all(cipher in line for line in lines), lines


async def test_relays_session_limit_of_target(anywhere: House) -> None:
    """`MaxSessions 1`: the second session of one connection is refused as by the target itself."""
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=["MaxSessions 1"])
    results = await together(
        anywhere.client(method, target=target).ssh("web1", "echo one") for method in AGENTS
    )
    assert [result.stdout for result in results] == [b"one\n"] * len(AGENTS)
    client = anywhere.client(target=target)
    shared = ("-o", f"ControlPath={anywhere.stage.short / anywhere.stage.unique('control')}")
    first = client.start("-M", *shared, "web1", "echo begun; cat")
    await first.says("begun")
    second = await client.ssh(
        *shared, "-o", "ProxyJump=none", "-o", "ProxyCommand=false", "web1", "echo never"
    )
    assert (second.stdout, second.code) == (b"", 255), str(second)
    assert "Session open refused by peer" in second.errors, str(second)
    first.write(b"still here\n")
    await first.says("still here")
    first.close_input()
    assert (await first.wait()).code == 0


AGENTS = (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM)


async def test_shows_banner_of_target(anywhere: House) -> None:
    """Where the agent is at hand before the inner login, what the target says there reaches the user."""
    banner = anywhere.stage.file("banner", "Authorised use only.\n")
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=[f"Banner {banner}"])
    result = await anywhere.client(AccessMethod.SUBSYSTEM, target=target).ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"there\n", 0)
    assert "Authorised use only." in result.errors


async def test_sends_identification_string_of_target(anywhere: House) -> None:
    result = await anywhere.client(more="LogLevel DEBUG1").ssh("web1", "true")
    direct = await anywhere.stage.process("ssh-keyscan", "-p", str(anywhere.target.port), "127.0.0.1").wait()
    version = next(
        line for line in direct.errors.splitlines() + direct.text.splitlines() if "SSH-2.0-" in line
    )
    name = version.partition("SSH-2.0-")[2].split()[0]
    assert f"remote software version {name} conchrec" in result.errors, result.errors
