"""Logins between us and OpenSSH, both ways round, with keys and certificates of each type."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.ssh.keys import Key as PrivateKey
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory

from conchrec.access.authorized_keys import parse_authorized_keys
from conchrec.access.credentials import Credentials
from conchrec.errors import AccessDenied, LoginRejected
from conchrec.model import Identity
from conchrec.ssh.agent import AgentSigner
from conchrec.ssh.algorithms import COMPATIBLE, UPSTREAM
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.certificate import CertificateKind, Ed25519Authority, issue
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.signers import KeySigner, Signer
from conchrec.ssh.transport import ClientTransport, ServerTransport
from conchrec.ssh.userauth_client import Login, UserAuthClient
from conchrec.ssh.userauth_server import UserAuthServer
from tests.support.keys import Key, sign_user
from tests.support.logins import ConnectionService
from tests.support.ports import free_port
from tests.support.powers import at_once
from tests.support.process import Process, environment, run
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.unixagent import connect_agent
from tests.support.wait import fact, in_time, reactor

KINDS = ("ed25519", "ecdsa", "rsa")


def blob_in(path: Path) -> bytes:
    """The second word of a public key, or a certificate, in a file."""
    return base64.b64decode(path.read_text().split()[1])


# --- our server, and ssh


class Gate:
    """Our server on a port: who may come in is in ``credentials``. An Authenticator for each connection."""

    def __init__(self, stage: Stage, credentials: Credentials) -> None:
        self._credentials = credentials
        self.identities: list[Identity] = []
        self.refused: list[str] = []
        self.connection_service = ConnectionService()
        self.port = free_port()
        host_key = ed25519.Ed25519PrivateKey.generate()
        plain = ServerHostKeys(host_key, None).get(b"ssh-ed25519").blob()
        authority = Ed25519Authority(ed25519.Ed25519PrivateKey.generate())
        self.known = f"@cert-authority * ssh-ed25519 {base64.b64encode(authority.blob).decode()}\n"
        certificate = issue(
            authority=authority,
            public_key=plain,
            kind=CertificateKind.HOST,
            serial=1,
            key_id="gate",
            principals=["127.0.0.1"],
            valid_after=0,
            valid_before=2**63,
        )
        self._shown = ServerHostKeys(host_key, certificate.blob)
        gate = self

        class Connections(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> ServerTransport:
                return gate.transport()

        port = reactor.listenTCP(self.port, Connections(), interface="127.0.0.1")

        async def end() -> None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped

        stage.at_end(end)

    def transport(self) -> ServerTransport:
        userauth = UserAuthServer(
            self,
            connection=self._in,
            clock=reactor,
            banner="Sessions are recorded.",
            host_key=lambda: transport.host_key_blob,
            on_refused=lambda user, method, reason: self.refused.append(f"{user} {method} {reason}"),
        )
        transport = ServerTransport(
            # ssh says no-more-sessions@openssh.com to its own kind only.
            identification=b"SSH-2.0-OpenSSH_9.2p1 conchrec",
            host_keys=self._shown,
            algorithms=COMPATIBLE,
            powers=at_once,
            userauth=lambda: userauth,
            clock=reactor,
        )
        return transport

    def _in(self, identity: Identity) -> SSHService:
        self.identities.append(identity)
        return self.connection_service

    def methods(self, user: str) -> tuple[bytes, ...]:
        return (b"publickey",)

    def none(self, user: str) -> Deferred[Identity]:
        return fail(AccessDenied("Permission denied", "a key is wanted"))

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        return self._credentials.acceptable(user, algorithm, blob, "127.0.0.1", datetime.now(timezone.utc))

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        return succeed(
            self._credentials.identity(user, algorithm, blob, "127.0.0.1", datetime.now(timezone.utc))
        )

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        return fail(AccessDenied("Permission denied"))


def ssh(stage: Stage, gate: Gate, *keys: Path, user: str = "joe", options: Sequence[str] = ()) -> Process:
    """It logs in and opens nothing, until it is ended."""
    known = stage.file(stage.unique("known_hosts"), gate.known)
    identities = [word for key in keys for word in ("-i", str(key))]
    settings = ["IdentitiesOnly=yes", f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none", *options]
    settings += ["StrictHostKeyChecking=yes", "BatchMode=yes"]
    return stage.process(
        "ssh", "-vvv", "-N", "-F", "none", "-p", str(gate.port), *identities,
        *(word for setting in settings for word in ("-o", setting)), f"{user}@127.0.0.1",
        env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_accepts_key_of_ssh(stage: Stage, kind: str) -> None:
    key = await stage.key("key", kind)
    lines = parse_authorized_keys(f'from="127.0.0.0/8" {key.line}', "joe.keys")
    gate = Gate(stage, Credentials(users={"joe": lines}, roles={"joe": ("ops",)}, authorities=lambda: ()))
    client = ssh(stage, gate, key.path)
    await client.says("Authenticated to 127.0.0.1")
    (identity,) = gate.identities
    assert (identity.user, identity.roles, identity.key) == ("joe", ("ops",), blob_in(key.public))
    errors = client.stderr.decode()
    assert "Sessions are recorded." in errors
    # The signature covers the host key too, here the certificate that we have shown.
    assert "publickey-hostbound-v00@openssh.com" in errors
    await fact(lambda: gate.connection_service.received, "nothing reaches the connection")
    assert gate.refused == []


@pytest.mark.parametrize("kind", KINDS)
async def test_accepts_certificate_of_ssh(stage: Stage, kind: str) -> None:
    authority = await stage.key("authority")
    key = await sign_user(authority, await stage.key("key", kind), "joe", "root")
    gate = Gate(stage, Credentials(users={"joe": ()}, authorities=lambda: (blob_in(authority.public),)))
    await ssh(stage, gate, key.path).says("Authenticated to 127.0.0.1")
    (identity,) = gate.identities
    assert key.certificate is not None
    assert identity.certificate == blob_in(key.certificate)
    assert identity.key == blob_in(key.public)


async def test_accepts_last_of_many_keys_of_ssh(stage: Stage) -> None:
    keys = [await stage.key() for _ in range(8)]
    lines = parse_authorized_keys(keys[-1].line, "joe.keys")
    gate = Gate(stage, Credentials(users={"joe": lines}, authorities=lambda: ()))
    await ssh(stage, gate, *(key.path for key in keys)).says("Authenticated to 127.0.0.1")
    assert gate.refused == []


@pytest.mark.parametrize("user", ["joe", "ann", "nobody"])
async def test_rejects_key_of_other_user(stage: Stage, user: str) -> None:
    key, other = await stage.key(), await stage.key()
    lines = parse_authorized_keys(other.line, "joe.keys")
    gate = Gate(stage, Credentials(users={"joe": lines, "ann": ()}, authorities=lambda: ()))
    result = await ssh(stage, gate, key.path, user=user).wait()
    assert result.code == 255
    assert f"{user}@127.0.0.1: Permission denied (publickey)." in result.errors
    await fact(lambda: gate.refused, "the audit hears nothing")
    assert gate.identities == []


async def test_rejects_sha1_signature(stage: Stage) -> None:
    key = await stage.key("key", "rsa")
    gate = Gate(
        stage, Credentials(users={"joe": parse_authorized_keys(key.line, "joe.keys")}, authorities=lambda: ())
    )
    result = await ssh(stage, gate, key.path, options=["PubkeyAcceptedAlgorithms=ssh-rsa"]).wait()
    assert result.code == 255
    assert gate.identities == []


# --- our client, and sshd


class Visitor:
    """Our client's login at an sshd."""

    def __init__(self, sshd: Sshd) -> None:
        self.sshd = sshd
        self.connection_service = ConnectionService()
        self.banners: list[bytes] = []
        self.offered: list[str] = []
        self.on_offer: Callable[[], object] = lambda: None
        self.transport = ClientTransport(
            algorithms=UPSTREAM,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519",),
            identification=b"SSH-2.0-conchrec_test",
            clock=reactor,
        )

    def _count_offer(self, signer: Signer) -> None:
        self.offered.append(signer.label)
        self.on_offer()

    async def connect(self, stage: Stage) -> None:
        endpoint = TCP4ClientEndpoint(reactor, self.sshd.host, self.sshd.port)
        await connectProtocol(endpoint, self.transport)

        async def end() -> None:
            lost = self.transport.when_lost()
            self.transport.abort()
            await in_time(lost, lambda: "the connection does not end")

        stage.at_end(end)
        await in_time(self.transport.when_secure(), lambda: f"no key exchange: {self.sshd.log}")

    async def log_in(self, *signers: Signer, user: str = LOGIN) -> Login:
        left = list(signers)
        userauth = UserAuthClient(
            user.encode(),
            lambda methods: succeed(left.pop(0) if left else None),
            self.connection_service,
            on_banner=self.banners.append,
            peer_extensions=lambda: self.transport.peer_extensions,
            host_key=lambda: self.transport.host_key_blob,
            on_offer=self._count_offer,
            target="web1",
        )
        self.transport.request_service(userauth)
        return await in_time(userauth.done, lambda: f"no login: {self.sshd.log}")


def signer_of(key: Key, label: str = "") -> KeySigner:
    private = PrivateKey.fromFile(str(key.path))
    certificate = blob_in(key.certificate) if key.certificate is not None else None
    return KeySigner(private, label=label or key.path.name, certificate=certificate)


async def log_in(stage: Stage, sshd: Sshd) -> Visitor:
    visitor = Visitor(sshd)
    await visitor.connect(stage)
    return visitor


@pytest.mark.parametrize("kind", KINDS)
async def test_logs_in_at_sshd_with_key(stage: Stage, kind: str) -> None:
    key, other = await stage.key("key", kind), await stage.key("other")
    banner = stage.file("banner", "Welcome to web1\n")
    visitor = await log_in(stage, await stage.sshd(users=[key], more=[f"Banner {banner}"]))
    login = await visitor.log_in(signer_of(other, "other"), signer_of(key, "good"))
    assert login.signer is not None
    assert login.signer.label == "good"
    assert visitor.banners == [b"Welcome to web1\n"]
    await visitor.sshd.process.says(f"Accepted publickey for {LOGIN}")
    await fact(lambda: visitor.connection_service.started, "the connection is not started")
    # hostkeys-00@openssh.com
    await fact(
        lambda: [number for number, _ in visitor.connection_service.received] == [80],
        "sshd sends no host keys",
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_logs_in_at_sshd_with_certificate(stage: Stage, kind: str) -> None:
    authority = await stage.key("authority")
    key = await sign_user(authority, await stage.key("key", kind), "joe/one", LOGIN)
    visitor = await log_in(stage, await stage.sshd(user_authority=authority.public))
    login = await visitor.log_in(signer_of(key))
    assert login.steps == (b"publickey",)
    await visitor.sshd.process.says("ID joe/one (serial 0)")


async def test_reads_extensions_of_sshd_before_first_offer(stage: Stage) -> None:
    key = await stage.key("key", "rsa")
    visitor = await log_in(stage, await stage.sshd(users=[key]))
    extensions: list[dict[bytes, bytes]] = []
    signer = signer_of(key)
    visitor.on_offer = lambda: extensions.append(visitor.transport.peer_extensions)
    await visitor.log_in(signer)
    assert b"rsa-sha2-512" in extensions[0][b"server-sig-algs"].split(b",")
    assert b"publickey-hostbound@openssh.com" in extensions[0]


async def test_logs_in_at_sshd_that_requires_two_keys(stage: Stage) -> None:
    first, second = await stage.key("one"), await stage.key("two")
    more = ["AuthenticationMethods publickey,publickey"]
    visitor = await log_in(stage, await stage.sshd(users=[first, second], more=more))
    login = await visitor.log_in(signer_of(first), signer_of(first), signer_of(second))
    assert login.steps == (b"publickey", b"publickey")
    assert visitor.offered == [first.path.name, second.path.name]


async def test_fails_login_when_sshd_accepts_no_key(stage: Stage) -> None:
    keys = [await stage.key() for _ in range(3)]
    visitor = await log_in(stage, await stage.sshd(users=[await stage.key()]))
    with pytest.raises(LoginRejected) as caught:
        await visitor.log_in(*(signer_of(key, f"key {number}") for number, key in enumerate(keys)))
    assert caught.value.public == (
        f"web1 rejected the login as {LOGIN}: tried key 0, key 1, key 2; it accepts publickey"
    )


async def test_logs_in_at_sshd_with_agent(stage: Stage) -> None:
    keys = [await stage.key("key", kind) for kind in KINDS]
    client = await connect_agent(stage, await stage.agent(*keys))
    for key in keys:
        visitor = await log_in(stage, await stage.sshd(users=[key]))
        signers = [AgentSigner(client, key) for key in await client.identities()]
        login = await visitor.log_in(*signers)
        assert login.signer is not None
        assert login.signer.blob == blob_in(key.public)


async def test_logs_in_with_key_restricted_to_target(stage: Stage) -> None:
    """``ssh-add -h``: the agent wants to know the session, and what is signed to name the host key."""
    key, host, elsewhere = await stage.key(), await stage.key("host"), await stage.key("host")
    good = await stage.sshd(users=[key], host_keys=[host])
    bad = await stage.sshd(users=[key], host_keys=[elsewhere])
    agent = await stage.agent()
    known = stage.file("known_hosts", host.known_as("web1"))
    env = environment(SSH_AUTH_SOCK=str(agent.socket))
    (await run("ssh-add", "-H", known, "-h", "web1", key.path, env=env)).check()
    for sshd, bound, well in ((good, True, True), (good, False, False), (bad, True, False)):
        client = await connect_agent(stage, agent)
        visitor = await log_in(stage, sshd)
        if bound:
            assert await client.bind_session(visitor.transport.session_binding, forwarding=False)
        signers = [AgentSigner(client, key) for key in await client.identities()]
        if well:
            assert (await visitor.log_in(*signers)).signer is not None
        else:
            with pytest.raises(LoginRejected):
                await visitor.log_in(*signers)
