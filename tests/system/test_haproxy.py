"""``haproxy:`` endpoints: the header is believed of those who are named, and nobody else is heard."""

from __future__ import annotations

import socket

from tests.support.house import role
from tests.support.proxy import Proxy
from tests.support.stage import Stage
from tests.support.waiting import in_thread

HEADER = b"PROXY TCP4 192.0.2.7 127.0.0.1 4321 22\r\n"


def greeting(port: int) -> bytes:
    """What the proxy says to somebody who sends a PROXY header and a version."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(HEADER + b"SSH-2.0-test\r\n")
            return connection.recv(20)
        except ConnectionError:
            return b""


async def answered(stage: Stage, networks: list[str]) -> tuple[bytes, Proxy]:
    proxy = Proxy(stage.path(stage.unique("proxy")), role())
    proxy.configure(
        {
            "listen": [f"haproxy:tcp:{proxy.port}:interface=127.0.0.1"],
            "proxy_protocol_from": networks,
            "limits": {"per_address": 1},
        }
    )
    stage.at_end(proxy.stop)
    await proxy.start()
    return await in_thread(lambda: greeting(proxy.port)), proxy


async def test_a_proxy_that_is_named(stage: Stage) -> None:
    said, _ = await answered(stage, ["127.0.0.0/8"])
    assert said.startswith(b"SSH-2.0-conchrec")


async def test_anybody_else(stage: Stage) -> None:
    said, proxy = await answered(stage, ["192.0.2.0/24"])
    assert said == b""
    assert "127.0.0.1 is not in proxy_protocol_from" in proxy.log


async def test_without_a_list_it_does_not_start(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), role())
    proxy.configure({"listen": [f"haproxy:tcp:{proxy.port}"]})
    checked = await proxy.command("config", "check")
    assert checked.code == 78
    assert "proxy_protocol_from" in checked.errors
