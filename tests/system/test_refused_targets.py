"""Targets that are not trusted, not there, or not well: the user reads why, and the audit has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection, Port

from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.keys import Key, sign_host
from tests.support.ports import free_port
from tests.support.process import Result
from tests.support.sshd import Sshd
from tests.support.stage import Stage
from tests.support.wait import reactor, together


async def refused(house: House, client: Client, line: str, *, within: float = 60) -> Result:
    """``ssh web1`` fails with this on stderr, and the audit says why."""
    known = len(house.proxy.audit("upstream.failed"))
    result = await client.ssh("web1", "echo never", within=within)
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert line in result.errors, str(result)
    assert "internal error" not in result.errors
    (*_, event) = await house.proxy.audited("upstream.failed", count=known + 1)
    assert event["user"] == "joe"
    assert event["reason"]
    return result


async def another(house: House, *host_keys: Key, known: str | None = None) -> Sshd:
    """One more target; ``known``: the lines that the proxy knows it by, by default its own."""
    target = await house.stage.sshd(
        users=[house.joe.key],
        host_keys=host_keys,
        user_authority=house.stage.path(f"{house.proxy.directory.name}/user_ca.pub"),
    )
    house.proxy.trust(target.known_as() if known is None else known)
    await house.proxy.restart()
    return target


async def test_refuses_changed_host_key(stage: Stage) -> None:
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    await house.target.stop()
    await stage.sshd(users=[house.joe.key], port=house.target.port)
    for method in AccessMethod:
        result = await refused(house, house.client(method), f"localhost:{house.target.port}")
        assert "changed" in result.errors or "presented a" in result.errors, str(result)


async def test_refuses_plain_host_key_when_certificate_is_required(stage: Stage) -> None:
    house = await build(stage, settings={"trusted_hosts": None})
    port = house.target.port
    for method in AccessMethod:
        await refused(
            house,
            house.client(method),
            f"conchrec: localhost:{port} presented a public key, expected a host certificate "
            "(ssh: handshake failed: remote host presented a public key, expected a host certificate). "
            "Ask your administrator to sign its host key",
        )


async def test_trusts_host_certificate_by_own_authority(stage: Stage, tmp_path: Path) -> None:
    """What the refusal advises, done: the target is trusted, under the names of its certificate alone."""
    house = await build(stage, settings={"trusted_hosts": None})
    key = await stage.key("host")
    out = tmp_path / "web1"
    command = ("ca", "sign-host", "--host", "localhost", "--out", out, "--public-key", key.public)
    (await house.proxy.command(*command)).check()
    signed = Key(path=key.path, certificate=tmp_path / "web1-cert.pub")
    assert signed.certificate is not None and signed.certificate.exists()
    target = await another(house, signed, known="")
    for method in AccessMethod:
        (await house.client(method, target=target).ssh("web1", "true")).check()
    (*_, event) = house.proxy.audit("upstream.connect", target=f"localhost:{target.port}")
    assert "cert" in str(event["trust"])
    await refused(house, house.client(target=target, host="127.0.0.1"), "127.0.0.1")


async def test_refuses_host_certificate_by_unknown_authority(stage: Stage) -> None:
    house = await build(stage, settings={"trusted_hosts": None})
    authority = await stage.key("authority")
    target = await another(house, await sign_host(authority, await stage.key("host"), "localhost"), known="")
    await refused(house, house.client(target=target), f"localhost:{target.port}")
    house.proxy.configure({"trusted_hosts": {"authorities": [authority.line]}})
    await house.proxy.restart()
    (await house.client(target=target).ssh("web1", "true")).check()


async def test_refuses_expired_host_certificate(stage: Stage) -> None:
    house = await build(stage)
    authority = await stage.key("authority")
    key = await sign_host(authority, await stage.key("host"), "localhost", "-V", "20200101:20200102")
    house.proxy.configure({"trusted_hosts": {"authorities": [authority.line]}})
    target = await another(house, key, known="")
    await refused(house, house.client(target=target), f"localhost:{target.port}")


async def test_accepts_one_known_host_key_of_several(stage: Stage) -> None:
    """A known_hosts with only the RSA line does not make the target's ed25519 key look changed."""
    house = await build(stage)
    rsa, edwards, curve = await stage.key(kind="rsa"), await stage.key(), await stage.key(kind="ecdsa")
    port = free_port()
    house.proxy.trust(rsa.known_as("localhost", port))
    await house.proxy.restart()
    target = await stage.sshd(users=[house.joe.key], host_keys=[edwards, curve, rsa], port=port)
    (await house.client(target=target).ssh("web1", "true")).check()


async def test_accepts_any_host_key_when_check_is_off(stage: Stage) -> None:
    house = await build(stage, settings={"trusted_hosts": None, "proxy_checks_host_keys": False})
    for method in AccessMethod:
        (await house.client(method).ssh("web1", "true")).check()
    events = await house.proxy.audited("hostkey.unchecked", count=len(AccessMethod))
    assert all(event["user"] == "joe" and event["host_key"] for event in events)
    await house.proxy.logged("host key", "not checked")


async def test_reports_target_that_is_down(stage: Stage) -> None:
    house = await build(stage)
    await house.target.stop()
    for method in AccessMethod:
        there = f"localhost:{house.target.port}"
        line = f"conchrec: cannot reach {there}: connection refused. Is sshd running there?"
        await refused(house, house.client(method), line)


async def test_reports_unknown_host(stage: Stage) -> None:
    house = await build(stage, settings={"roles": {"ops": {"hosts": ["*"]}}})
    result = await house.client(host="no-such-host.invalid").ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255)
    assert "no-such-host.invalid" in result.errors and "no such host" in result.errors, result.errors


@dataclass
class _Peer(Protocol):
    """Takes a connection, says ``greeting`` and nothing more; or hangs up."""

    greeting: bytes
    hangs_up: bool

    def connectionMade(self) -> None:
        self.connection.write(self.greeting)
        if self.hangs_up:
            self.connection.loseConnection()

    @property
    def connection(self) -> Connection:
        assert self.transport is not None
        return cast(Connection, self.transport)


@dataclass
class _Peers(Factory):
    greeting: bytes = b""
    hangs_up: bool = False
    seen: list[_Peer] = field(default_factory=list)
    noisy = False  # a line in the log for each would say nothing

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        peer = _Peer(self.greeting, self.hangs_up)
        self.seen.append(peer)
        return peer


def listen(stage: Stage, peers: _Peers) -> int:
    """A target of ours, in this process; its port."""
    port: Port = reactor.listenTCP(0, peers, interface="127.0.0.1")

    async def close() -> None:
        for peer in peers.seen:
            peer.connection.loseConnection()
        await port.stopListening()

    stage.at_end(close)
    return int(port.getHost().port)


async def test_reports_target_that_sends_nothing(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"connect_timeout": "2s"}})
    port = listen(stage, _Peers())
    line = f"localhost:{port}: it accepts the connection and sends nothing"
    await together(refused(house, house.client(method, port=port), line) for method in AccessMethod)
    await house.proxy.audited("upstream.failed", count=len(AccessMethod))
    (await house.client().ssh("web1", "true")).check()


async def test_reports_target_that_stops_after_identification(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"connect_timeout": "2s"}})
    port = listen(stage, _Peers(greeting=b"SSH-2.0-OpenSSH_9.2p1\r\n"))
    await refused(house, house.client(port=port), f"localhost:{port}")


async def test_reports_target_that_is_no_ssh_server(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"connect_timeout": "2s"}})
    port = listen(stage, _Peers(greeting=b"HTTP/1.0 400 Bad Request\r\n\r\n", hangs_up=True))
    await refused(house, house.client(port=port), f"localhost:{port}")


async def test_retries_target_that_drops_connections(stage: Stage) -> None:
    """It is tried again, and in the end the user is told."""
    house = await build(stage, settings={"limits": {"connect_timeout": "3s"}})
    peers = _Peers(hangs_up=True)
    port = listen(stage, peers)
    await refused(
        house, house.client(port=port), f"localhost:{port}: it closes new connections before the login"
    )
    assert len(peers.seen) > 1


async def test_reports_target_that_penalizes_proxy(stage: Stage) -> None:
    """OpenSSH 9.8 and later, with PerSourcePenalties."""
    house = await build(stage, settings={"limits": {"connect_timeout": "2s"}})
    peers = _Peers(greeting=b"Not allowed at this time\r\n", hangs_up=True)
    port = listen(stage, peers)
    result = await refused(house, house.client(port=port), "Not allowed at this time")
    assert "PerSourcePenaltyExemptList" in result.errors


async def test_dials_nothing_before_policy_allows(stage: Stage) -> None:
    """Neither a host that is denied, by its name or its address, nor a login that the role does not have."""
    house = await build(stage)
    peers = _Peers(greeting=b"SSH-2.0-OpenSSH_9.2p1\r\n", hangs_up=True)
    port = listen(stage, peers)
    house.proxy.configure({"roles": {"ops": {"deny": {"hosts": [f"127.0.0.1:{port}"]}}}})
    await house.proxy.restart()
    for host in ("localhost", "127.0.0.1"):
        for method in AccessMethod:
            result = await house.client(method, host=host, port=port).ssh("web1", "true")
            assert result.code == 255 and "conchrec: joe may not" in result.errors, str(result)
    assert peers.seen == []
    before = house.target.log.count("Connection from")
    for method in AccessMethod:
        result = await house.client(method, login="daemon").ssh("web1", "true")
        assert result.code == 255 and "may not log in as daemon" in result.errors, str(result)
    assert "daemon" not in house.target.log
    assert house.target.log.count("Accepted") == 0
    # Its banner may have been read, to be mirrored: that names nobody.
    assert house.target.log.count("Connection from") - before <= len(AccessMethod)


async def test_reports_target_that_dies_during_login(stage: Stage) -> None:
    house = await build(stage)
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun")
    await house.target.stop()
    result = await process.wait()
    assert result.code == 255, str(result)
    assert "conchrec: " in result.errors, str(result)
    recording = await house.proxy.finished_one()
    assert recording.text().startswith("begun\n")
    assert recording.manifest is not None and "exit" not in recording.manifest


async def test_keeps_other_streams_of_outer_connection(stage: Stage) -> None:
    """One jump connection, two targets; one of them is refused and the other goes on."""
    house = await build(stage)
    control = stage.short / "jump"
    client = house.client(
        AccessMethod.OUTER_AGENT,
        more=f"Host proxy\n    ControlMaster auto\n    ControlPath {control}\n    ControlPersist 60\nHost *",
    )
    process = client.start("web1", "echo begun; cat; exit 8")
    await process.says("begun")
    logins = len(house.proxy.audit("user.login", stage="outer"))
    bad = await client.ssh("-p", str(free_port()), "web1", "echo never")
    assert bad.code == 255
    assert len(house.proxy.audit("user.login", stage="outer")) == logins
    process.write(b"still here\n")
    await process.says("still here")
    process.close_input()
    assert (await process.wait()).code == 8
    await client.program("ssh", *client.options, "-O", "exit", "proxy")
