"""Key exchanges and ciphers between our transports and those of others: OpenSSH, asyncssh, paramiko, and
Conch's own; and what ssh-audit has to say."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.ssh.keys import Key as ConchKey
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory

from conchrec.errors import HostKeyRejected
from conchrec.model import Target
from conchrec.ssh.algorithms import COMPATIBLE, LEGACY, Algorithms
from conchrec.ssh.host_key_check import CERTIFIED, PLAIN, HostTrust
from conchrec.ssh.kex_methods import SNTRUP_METHODS
from conchrec.ssh.known_hosts import KnownHosts
from conchrec.ssh.packetcipher import is_aead
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.transport import ClientTransport, ConnectionEnd, ServerTransport
from conchrec.ssh.wire import string
from tests.support.client import AccessMethod, Client
from tests.support.dropbear import start_dropbear
from tests.support.house import build
from tests.support.keys import sign_host
from tests.support.ports import free_port
from tests.support.powers import KeyPairsAtOnce, at_once
from tests.support.process import Result, environment, run
from tests.support.sshd import Sshd, version
from tests.support.stage import Stage
from tests.support.wait import block, in_thread, in_time, reactor

HYBRID = b"mlkem768x25519-sha256"
#: OpenSSH has these since 9.9, and some builds of older versions have the second.
RECENT = (HYBRID, SNTRUP_METHODS[0])
CURVE = b"curve25519-sha256"
FIRST_MAC = b"hmac-sha2-256-etm@openssh.com"
SUITES = [
    (cipher, mac)
    for cipher in COMPATIBLE.ciphers
    for mac in (COMPATIBLE.macs[:1] if is_aead(cipher) else COMPATIBLE.macs)
]


class Refusal(SSHService):
    """The shortest userauth service: nobody is let in, after a whole key exchange and under its keys."""

    name = b"ssh-userauth"
    transport: Any

    def serviceStarted(self) -> None:
        """Waits to be asked."""

    def serviceStopped(self) -> None:
        """Has nothing to end."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        self.transport.sendPacket(51, string(b"publickey") + b"\0")


class Server:
    """Ours, on a port."""

    def __init__(self, stage: Stage, algorithms: Algorithms = COMPATIBLE) -> None:
        self.port = free_port()
        self.ends: list[ConnectionEnd] = []
        self.transports: list[ServerTransport] = []
        key = ed25519.Ed25519PrivateKey.generate()
        shown = ServerHostKeys(key, None)
        blob = shown.get(b"ssh-ed25519").blob()
        known = f"[127.0.0.1]:{self.port} ssh-ed25519 {base64.b64encode(blob).decode()}\n"
        self.known = stage.file(stage.unique("known_hosts"), known)
        server = self

        class Connections(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> ServerTransport:
                transport = ServerTransport(
                    identification=b"SSH-2.0-conchrec",
                    host_keys=shown,
                    algorithms=algorithms,
                    powers=at_once,
                    userauth=Refusal,
                    clock=reactor,
                )
                server.transports.append(transport)
                transport.when_lost().addCallback(server.ends.append)
                return transport

        port = reactor.listenTCP(self.port, Connections(), interface="127.0.0.1")

        async def end() -> None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped

        stage.at_end(end)

    async def ssh(self, *options: str, verbosity: str = "-v") -> Result:
        """Run ssh, which is refused at the login."""
        settings = (f"UserKnownHostsFile={self.known}", "StrictHostKeyChecking=yes", "BatchMode=yes")
        words = [word for setting in (*settings, *options) for word in ("-o", setting)]
        result = await run(
            "ssh", verbosity, "-F", "none", "-p", str(self.port), *words, "joe@127.0.0.1", env=environment()
        )
        assert result.code == 255, str(result)
        assert "Permission denied (publickey)" in result.errors, str(result)
        return result


@pytest.fixture(scope="module")
def server(shared_stage: Stage) -> Server:
    return Server(shared_stage)


async def known_to_ssh(kind: str) -> set[str]:
    return set((await run("ssh", "-Q", kind)).check().text.split())


# --- OpenSSH's client


@pytest.mark.parametrize(("cipher", "mac"), SUITES)
async def test_accepts_ciphers_of_ssh(server: Server, cipher: bytes, mac: bytes) -> None:
    result = await server.ssh(f"Ciphers={cipher.decode()}", f"MACs={mac.decode()}")
    shown = "<implicit>" if is_aead(cipher) else mac.decode()
    for method in ("server->client", "client->server"):
        assert f"kex: {method} cipher: {cipher.decode()} MAC: {shown} compression: none" in result.errors


@pytest.mark.parametrize("kex", [kex for kex in COMPATIBLE.kex if kex not in RECENT])
async def test_accepts_key_exchanges_of_ssh(server: Server, kex: bytes) -> None:
    result = await server.ssh(f"KexAlgorithms={kex.decode()}")
    assert f"kex: algorithm: {kex.decode()}\n" in result.errors.replace("\r", "")


async def test_negotiates_best_algorithms_with_ssh(server: Server) -> None:
    """The best that both know: ML-KEM from OpenSSH 9.9 on, and sntrup761 from 9.0 on.

    Which level of debug output has a line differs between versions of ssh: all of them are read.
    """
    result = await server.ssh(verbosity="-vvv")
    known = await known_to_ssh("kex")
    best = next(kex for kex in COMPATIBLE.kex if kex.decode() in known)
    assert f"kex: algorithm: {best.decode()}\n" in result.errors.replace("\r", "")
    assert (best == HYBRID) == (await version() >= (9, 9))
    assert (best in SNTRUP_METHODS) == ((9, 0) <= await version() < (9, 9))
    assert "will use strict KEX ordering" in result.errors or await version() < (9, 6)
    assert "kex_ext_info_client_parse: server-sig-algs=<ssh-ed25519," in result.errors.replace(
        "kex_input_ext_info: ", "kex_ext_info_client_parse: "
    )


@pytest.mark.parametrize(("compression", "agreed"), [("yes", "zlib@openssh.com"), ("no", "none")])
async def test_compresses_for_ssh(server: Server, compression: str, agreed: str) -> None:
    assert f"compression: {agreed}" in (await server.ssh(f"Compression={compression}")).errors


async def test_rejects_ssh_without_common_algorithm(server: Server) -> None:
    result = await run(
        *("ssh", "-F", "none", "-p", str(server.port), "-o", "BatchMode=yes"),
        *("-o", "KexAlgorithms=diffie-hellman-group14-sha1", "joe@127.0.0.1"),
        env=environment(),
    )
    assert result.code == 255
    assert "no matching key exchange method found" in result.errors


@pytest.mark.parametrize("kex", [b"diffie-hellman-group14-sha256", b"ecdh-sha2-nistp521", CURVE])
async def test_accepts_key_exchanges_of_dbclient(stage: Stage, kex: bytes) -> None:
    """It has no option for them: the server knows one only."""
    server = Server(stage, replace(COMPATIBLE, kex=(kex,)))
    result = await run("dbclient", "-y", "-y", "-p", str(server.port), "joe@127.0.0.1", env=environment())
    assert "No auth methods could be used" in result.errors, str(result)
    assert server.transports[0].agreed_names[0] == kex


# --- OpenSSH's server


async def connected(
    stage: Stage,
    host: str,
    port: int,
    algorithms: Algorithms,
    *,
    verify: Callable[[bytes], object] = lambda blob: None,
    host_key_algorithms: tuple[bytes, ...] = (b"ssh-ed25519",),
) -> ClientTransport:
    """Our client, through the key exchange and with a service that was accepted under the new keys."""

    def verify_host_key(blob: bytes) -> None:
        verify(blob)

    transport = ClientTransport(
        algorithms=algorithms,
        powers=at_once,
        key_pairs=KeyPairsAtOnce(),
        verify_host_key=verify_host_key,
        host_key_algorithms=host_key_algorithms,
        identification=b"SSH-2.0-conchrec_test",
        clock=reactor,
    )
    await connectProtocol(TCP4ClientEndpoint(reactor, host, port), transport)

    async def end() -> None:
        lost = transport.when_lost()
        transport.abort()
        await in_time(lost, lambda: "the connection does not end")

    stage.at_end(end)
    await in_time(transport.when_secure(), lambda: "no key exchange")

    class Accepted(Refusal):
        def serviceStarted(self) -> None:
            accepted.callback(None)

    accepted: Deferred[None] = Deferred()
    transport.request_service(Accepted())
    await in_time(accepted, lambda: "no service")
    assert transport.lost is None
    return transport


@pytest.fixture(scope="module")
def sshd(shared_stage: Stage) -> Sshd:
    """One that knows more than it would use by itself."""
    more = [
        "Ciphers " + ",".join(cipher.decode() for cipher in COMPATIBLE.ciphers),
        "MACs " + ",".join(mac.decode() for mac in LEGACY.macs),
        "KexAlgorithms " + ",".join(kex.decode() for kex in LEGACY.kex if kex not in RECENT),
        "MaxStartups 100",
    ]
    return block(shared_stage.sshd(more=more))


@pytest.mark.parametrize(("cipher", "mac"), [*SUITES, (b"aes128-ctr", b"hmac-sha1")])
async def test_uses_ciphers_of_sshd(stage: Stage, sshd: Sshd, cipher: bytes, mac: bytes) -> None:
    only = replace(LEGACY, ciphers=(cipher,), macs=(mac,))
    await connected(stage, sshd.host, sshd.port, only)


@pytest.mark.parametrize("kex", [kex for kex in LEGACY.kex if kex not in RECENT])
async def test_uses_key_exchanges_of_sshd(stage: Stage, sshd: Sshd, kex: bytes) -> None:
    transport = await connected(stage, sshd.host, sshd.port, replace(LEGACY, kex=(kex,)))
    assert transport.peer_identification is not None
    assert transport.peer_identification.startswith(b"SSH-2.0-OpenSSH_")
    assert b"server-sig-algs" in transport.peer_extensions


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("certified", [False, True])
async def test_verifies_host_keys_of_sshd(stage: Stage, kind: str, certified: bool) -> None:
    """Verified for what they are: by the plain key, or by the authority that signed for this name."""
    key, authority = await stage.key("host", kind), await stage.key("authority")
    if certified:
        key = await sign_host(authority, key, "127.0.0.1,localhost")
    sshd = await stage.sshd(host_keys=[key])
    known = f"@cert-authority * {authority.line}\n" if certified else sshd.known_as()
    trust = HostTrust(KnownHosts([stage.file("known_hosts", known)]), authorities=())
    target = Target(host="127.0.0.1", port=sshd.port)
    verdicts: list[str] = []

    def verify(blob: bytes) -> None:
        verdicts.append(trust.verify(target, blob, datetime.now(timezone.utc)).algorithm)

    transport = await connected(
        stage,
        sshd.host,
        sshd.port,
        COMPATIBLE,
        verify=verify,
        host_key_algorithms=trust.algorithms_for(target),
    )
    assert len(verdicts) == 1
    assert verdicts[0].endswith("-cert-v01@openssh.com") is certified
    assert transport.host_key_signature


@pytest.mark.parametrize("algorithm", [*CERTIFIED, *PLAIN])
async def test_offers_host_key_algorithms_that_sshd_knows(
    stage: Stage, algorithm: bytes, host_keys: Sshd
) -> None:
    """Those that we offer are those that sshd understands by these names."""
    transport = await connected(
        stage, host_keys.host, host_keys.port, COMPATIBLE, host_key_algorithms=(algorithm,)
    )
    assert transport.host_key_blob


@pytest.fixture(scope="module")
def host_keys(shared_stage: Stage) -> Sshd:
    """An sshd with a host key, and a certificate, of each type."""

    async def start() -> Sshd:
        authority = await shared_stage.key("authority")
        keys = []
        for kind in ("ed25519", "rsa", "ecdsa"):
            keys.append(await sign_host(authority, await shared_stage.key("host", kind), "localhost"))
        for bits in ("384", "521"):
            path = shared_stage.path(f"keys/{shared_stage.unique('host')}")
            (await run("ssh-keygen", "-q", "-t", "ecdsa", "-b", bits, "-N", "", "-f", path)).check()
            keys.append(await sign_host(authority, type(authority)(path=path), "localhost"))
        return await shared_stage.sshd(host_keys=keys, more=["MaxStartups 100"])

    return block(start())


async def test_disconnects_when_host_key_is_rejected(stage: Stage, sshd: Sshd) -> None:
    def refuse(blob: bytes) -> None:
        raise HostKeyRejected("not this one")

    with pytest.raises(HostKeyRejected, match="not this one"):
        await connected(stage, sshd.host, sshd.port, COMPATIBLE, verify=refuse)
    await sshd.process.says("not this one")


# --- others


@pytest.mark.parametrize(
    ("kex", "cipher", "mac"),
    [
        # asyncssh has sntrup761 only with liboqs.
        *((kex, COMPATIBLE.ciphers[0], FIRST_MAC) for kex in COMPATIBLE.kex if kex not in SNTRUP_METHODS),
        *((CURVE, cipher, mac) for cipher, mac in SUITES),
    ],
)
async def test_exchanges_keys_with_asyncssh(server: Server, kex: bytes, cipher: bytes, mac: bytes) -> None:
    """Refused, by its own words, after all of this was settled on."""

    async def connect() -> tuple[str, str]:
        seen: dict[str, str] = {}

        class Visitor(asyncssh.SSHClient):
            def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
                self._conn = conn

            def begin_auth(self, username: str) -> None:
                for name in ("send_cipher", "recv_cipher", "send_mac"):
                    seen[name] = str(self._conn.get_extra_info(name))

        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                "127.0.0.1",
                server.port,
                client_factory=Visitor,
                username="joe",
                known_hosts=str(server.known),
                client_keys=None,
                agent_path=None,
                config=None,
                kex_algs=[kex.decode()],
                encryption_algs=[cipher.decode()],
                mac_algs=[mac.decode()],
            )
        assert seen["send_cipher"] == seen["recv_cipher"]
        return seen["send_cipher"], seen["send_mac"]

    sent, with_mac = await in_thread(lambda: asyncio.run(connect()))
    assert sent == cipher.decode()
    assert with_mac == (cipher if is_aead(cipher) else mac).decode()


PARAMIKO_CIPHERS = (
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
)
PARAMIKO_EXCHANGES = (
    "mlkem768x25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)


@pytest.mark.parametrize(
    ("kex", "cipher"),
    [
        *((kex, PARAMIKO_CIPHERS[0]) for kex in PARAMIKO_EXCHANGES),
        *((PARAMIKO_EXCHANGES[1], cipher) for cipher in PARAMIKO_CIPHERS[1:]),
    ],
)
async def test_exchanges_keys_with_paramiko(server: Server, kex: str, cipher: str) -> None:
    def connect() -> tuple[str, list[str]]:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            transport = paramiko.Transport(connection)
            options = transport.get_security_options()
            options.kex, options.ciphers = (kex,), (cipher,)
            try:
                transport.start_client(timeout=60)
                with pytest.raises(paramiko.BadAuthenticationType) as caught:
                    transport.auth_none("joe")
                used = transport.remote_cipher  # type: ignore[attr-defined]
                return str(used), list(caught.value.allowed_types)
            finally:
                transport.close()

    assert await in_thread(connect) == (cipher, ["publickey"])


CONCH = """
import sys
from twisted.conch.ssh import factory, keys, userauth, connection
from twisted.internet import reactor
key = keys.Key.fromFile(sys.argv[1])
server = factory.SSHFactory()
server.publicKeys = {b"ssh-ed25519": key.public()}
server.privateKeys = {b"ssh-ed25519": key}
server.services = {b"ssh-userauth": userauth.SSHUserAuthServer, b"ssh-connection": connection.SSHConnection}
server.primes = None
class Portal:
    def listCredentialsInterfaces(self):
        return []
server.portal = Portal()
port = reactor.listenTCP(0, server, interface="127.0.0.1")
print("listening on", port.getHost().port, flush=True)
reactor.run()
"""


@pytest.mark.parametrize("kex", [HYBRID, CURVE, b"ecdh-sha2-nistp384", b"diffie-hellman-group14-sha1"])
async def test_exchanges_keys_with_conch(stage: Stage, kex: bytes) -> None:
    """Another implementation of the hybrid; without strict key exchange, GCM and -etm MACs."""
    pem = ConchKey(ed25519.Ed25519PrivateKey.generate()).toString("OPENSSH")
    key = stage.file("conch_key", pem)
    process = stage.process(sys.executable, "-c", CONCH, str(key))
    await process.says("\n")
    port = int(process.stdout.split()[-1])
    transport = await connected(stage, "127.0.0.1", port, replace(LEGACY, kex=(kex,)))
    assert b"Twisted" in (transport.peer_identification or b"")


# --- dropbear


@pytest.mark.parametrize("kex", [b"diffie-hellman-group14-sha256", b"ecdh-sha2-nistp521", CURVE])
async def test_exchanges_keys_with_dropbear(stage: Stage, kex: bytes) -> None:
    port = free_port()
    process, _ = await start_dropbear(stage.path("dropbear"), host_key=await stage.key("host"), port=port)
    stage.at_end(process.stop)
    transport = await connected(stage, "127.0.0.1", port, replace(COMPATIBLE, kex=(kex,)))
    assert transport.agreed_names[0] == kex


# --- new keys in the middle, everywhere at once


async def test_rekeys_on_all_connections_at_once(shared_stage: Stage, tmp_path: Path) -> None:
    """The user's ssh asks on both of its connections after every megabyte, and so does the target."""
    house = await build(shared_stage, settings={"proxy_checks_host_keys": False}, sshd=["RekeyLimit 1M"])
    client: Client = house.client(AccessMethod.INNER_AGENT, more="RekeyLimit 1M\nLogLevel DEBUG1")
    contents, back = tmp_path / "contents", tmp_path / "back"
    contents.write_bytes(os.urandom(20_000_000))
    result = await client.ssh("web1", "cat", stdin=contents, stdout=back, within=180)
    assert result.code == 0, str(result)
    assert back.read_bytes() == contents.read_bytes()
    assert result.errors.count("SSH2_MSG_NEWKEYS received") > 40, "on both connections, and often"
