"""``session_recording: off``: what changes while bytes pass through untouched, and what limits them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

import paramiko
import pytest

from tests.support.client import Client
from tests.support.house import House, build, role
from tests.support.process import Process
from tests.support.stage import Stage
from tests.support.wait import LONG, fact, in_thread
from tests.system.test_live_change import goes_on, moment, reloaded

SECONDS = 4.0
LOOP = "echo ready; while read x; do echo got $x; done"


async def house_of(stage: Stage, **options: object) -> tuple[House, Client]:
    """The client knows the target's own key, which it sees."""
    house = await build(stage, settings={"session_recording": "off"}, options=options)
    return house, house.client(authority=house.authority + house.target.known_as())


async def begun(client: Client) -> Process:
    process = client.start("web1", LOOP, stdin=None)
    await process.says("ready\n")
    return process


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"roles": {"ops": {"hosts": ["127.0.0.66"]}}}, "joe may not reach localhost"),
        ({"roles": {"ops": {"options": {"require_mfa": "login"}}}}, "your roles now require a second factor"),
        ({"roles": {"ops": {"options": {"approval": ["ops"]}}}}, "this access now requires an approval"),
        (
            {"session_recording": "proxy"},
            "the administrator changed how sessions are recorded (session_recording)",
        ),
        ({"users": {"joe": None}}, "the user joe was removed from the configuration"),
    ],
    ids=["hosts", "mfa", "approval", "recording", "user"],
)
async def test_ends_passthrough_when_role_is_withdrawn(
    stage: Stage, change: Mapping[str, object], reason: str
) -> None:
    house, client = await house_of(stage)
    session = await begun(client)
    house.proxy.configure({"notice": "another"})
    await reloaded(house, result="ok")
    await goes_on(session, "on")
    house.proxy.configure(change)
    event = await reloaded(house, result="ok")
    result = await session.wait()
    assert (result.code, result.errors.count(f"conchrec: {reason}")) == (255, 1), str(result)
    (end,) = await house.proxy.audited("passthrough.end")
    assert reason in str(end["reason"]) or reason in str(house.proxy.audit("client.disconnect")), end
    assert (moment(end) - moment(event)).total_seconds() < SECONDS
    assert reason in str(house.proxy.audit("session.rejected"))


async def test_ends_passthrough_at_time_limit(stage: Stage) -> None:
    house, client = await house_of(stage)
    ttl = await client.time_of_session()
    house.proxy.configure(role(max_session_ttl=f"{ttl}s"))
    await reloaded(house, result="ok")
    session = await begun(client)
    for _ in range(3):
        await goes_on(session, "on")
    assert (await session.wait()).code == 255
    (_, end) = await house.proxy.audited("passthrough.end", count=2)
    assert "(max_session_ttl)" in str(end["reason"])


async def test_ends_idle_passthrough(stage: Stage) -> None:
    house, client = await house_of(stage, client_idle_timeout="2s")
    session = await begun(client)
    result = await session.wait()
    assert result.code == 255
    assert result.errors.count("conchrec: nothing was received from your client for 2s") == 1, str(result)
    (end,) = await house.proxy.audited("passthrough.end")
    assert "(client_idle_timeout)" in str(end["reason"])


async def test_limits_passthrough_connections(stage: Stage) -> None:
    """Also where they are opened at the same time."""
    house, client = await house_of(stage, max_connections=2)
    many = [client.start("web1", LOOP, stdin=None) for _ in range(5)]
    await house.proxy.audited("session.rejected", count=3, rule="max_connections")
    assert len(house.proxy.audit("passthrough.start")) == 2
    (await house.proxy.command("lock", "--user", "joe")).check()
    for process in many:
        assert (await process.wait()).code == 255


@pytest.mark.parametrize("end", ["target", "user", "close"])
async def test_ends_passthrough_when_target_stops_reading(stage: Stage, end: str) -> None:
    """What is on its way does not keep it open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        server.settimeout(LONG)
        house = await build(stage, settings={"session_recording": "off"})

        def fill() -> tuple[paramiko.Transport, paramiko.Channel, socket.socket]:
            transport = paramiko.Transport((house.proxy.host, house.proxy.port))
            key = paramiko.Ed25519Key.from_private_key_file(str(house.keyless.key.path))
            transport.connect(username="joe", pkey=key)
            channel = transport.open_channel(
                "direct-tcpip", ("127.0.0.1", server.getsockname()[1]), ("127.0.0.1", 1), timeout=LONG
            )
            peer, _ = server.accept()
            channel.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    channel.send(bytes(30000))
            return transport, channel, peer

        transport, channel, peer = await in_thread(fill)
        try:
            if end == "close":
                channel.close()
            else:
                what = ("--user", "joe") if end == "user" else ("--target", "127.0.0.1")
                (await house.proxy.command("lock", *what)).check()
            await house.proxy.audited("passthrough.end")

            def drain() -> None:
                peer.settimeout(LONG)
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(65536):
                        pass

            await in_thread(drain)
            await fact(lambda: end != "user" or not transport.is_active(), "the user is not sent away")
        finally:
            transport.close()
            peer.close()
