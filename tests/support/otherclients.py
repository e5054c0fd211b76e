"""Other people's clients on their way through the proxy, without an agent: the target trusts our user CA."""

from __future__ import annotations

from pathlib import Path

import paramiko

from tests.support.house import House
from tests.support.process import environment, run
from tests.support.sshd import LOGIN

PATIENCE = 60.0
"""Seconds that they wait for anything."""


def send_request(
    channel: paramiko.Channel, name: str | bytes, fields: bytes = b"", *, wants_reply: bool = False
) -> None:
    """Send a channel request that paramiko does not know, or writes in another way."""
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(name)
    message.add_boolean(wants_reply)
    message.add_bytes(fields)
    # paramiko has no public way to send a message of its caller.
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001


def paramiko_connections(house: House) -> tuple[paramiko.Transport, paramiko.Transport]:
    """The outer and the inner connection, both logged in."""
    key = paramiko.Ed25519Key.from_private_key_file(str(house.keyless.key.path))
    outer = paramiko.Transport((house.proxy.host, house.proxy.port))
    outer.connect(username="joe", pkey=key)
    tunnel = outer.open_channel(
        "direct-tcpip", ("localhost", house.target.port), ("127.0.0.1", 0), timeout=PATIENCE
    )
    inner = paramiko.Transport(tunnel)
    inner.connect(username=LOGIN, pkey=key)
    return outer, inner


async def _fingerprint(house: House) -> str:
    """Of the proxy's plain key, for PuTTY. Every target behind it shows the same one."""
    scanned = (
        await run("ssh-keyscan", "-t", "ed25519", "-p", str(house.proxy.port), house.proxy.host)
    ).check()
    file = house.stage.file(house.stage.unique("scanned"), scanned.stdout)
    listed = await run("ssh-keygen", "-l", "-f", file)
    return listed.check().text.split()[1]


async def putty(house: House, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """plink's or psftp's options for the target behind the proxy, and their environment."""
    key = tmp_path / "joe.ppk"
    command = (
        "puttygen",
        house.keyless.key.path,
        "-O",
        "private",
        "-o",
        key,
        "--new-passphrase",
        "/dev/null",
    )
    (await run(*command)).check()
    trusted = ["-hostkey", await _fingerprint(house)]
    common = ["-batch", "-noagent", "-i", str(key), *trusted]
    jump = ["plink", *common, "-P", str(house.proxy.port), "-nc", "%host:%port", "joe@127.0.0.1"]
    options = [*common, "-P", str(house.target.port), "-proxycmd", " ".join(jump)]
    # PuTTY goes to localhost by itself, unless told otherwise, and keeps its settings in HOME.
    settings = tmp_path / ".putty" / "sessions"
    settings.mkdir(parents=True)
    (settings / "Default%20Settings").write_text("ProxyLocalhost=1\n")
    return options, environment(HOME=str(tmp_path))
