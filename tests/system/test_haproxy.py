"""``haproxy:`` endpoints: the header is believed of those who are named, and nobody else is heard."""

from __future__ import annotations

import socket
import sys

from tests.support.house import build, role
from tests.support.proxy import Proxy
from tests.support.stage import Stage
from tests.support.wait import in_thread

HEADER = b"PROXY TCP4 192.0.2.7 127.0.0.1 4321 22\r\n"


#: A load balancer for one connection: the header first, then whatever stdin and the socket say.
BALANCER = """
import os, select, socket, sys
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
source = " ".join(sys.argv[3:])
header = f"{source} 127.0.0.1 4321 22"
there.sendall(f"PROXY {header}\\r\\n".encode())
while True:
    for ready in select.select([0, there], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else there.recv(65536)
        if not data:
            sys.exit()
        there.sendall(data) if ready == 0 else os.write(1, data)
"""


def greeting(port: int, header: bytes = HEADER) -> bytes:
    """What the proxy says to somebody who sends a PROXY header, and waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(header)
            return connection.recv(20)
        except ConnectionError:
            return b""


async def answered(stage: Stage, networks: list[str]) -> tuple[bytes, Proxy]:
    proxy = Proxy(stage.path(stage.unique("proxy")), role())
    proxy.configure(
        {
            "listen": [f"haproxy:tcp:{proxy.port}:interface=127.0.0.1"],
            "proxy_protocol_from": networks,
        }
    )
    stage.at_end(proxy.stop)
    await proxy.start()
    return await in_thread(lambda: greeting(proxy.port)), proxy


async def test_accepts_header_of_configured_proxy(stage: Stage) -> None:
    answer, _ = await answered(stage, ["127.0.0.0/8"])
    assert answer.startswith(b"SSH-2.0-conchrec")


async def test_uses_client_address_of_header(stage: Stage) -> None:
    """For the limits, the roles and the audit; also where a header says nothing of a user."""
    house = await build(stage)
    house.proxy.configure(
        {
            "listen": [f"haproxy:tcp:{house.proxy.port}:interface=127.0.0.1"],
            "proxy_protocol_from": ["127.0.0.1/32"],
        }
    )
    await house.proxy.restart()
    through = stage.file("through.py", BALANCER)
    command = f"{sys.executable} {through} 127.0.0.1 {house.proxy.port}"
    for source, expected in (("TCP4 192.0.2.7", "192.0.2.7:4321"), ("UNKNOWN 192.0.2.7", "127.0.0.1:")):
        before = house.proxy.sids()
        client = house.client(more=f"Host proxy\n    ProxyCommand {command} {source}")
        result = await client.ssh("web1", "echo there")
        assert (result.stdout, result.code) == (b"there\n", 0), str(result)
        recording = await house.proxy.finished_one(after=before)
        assert recording.manifest is not None
        assert str(recording.manifest["address"]).startswith(expected)
    (first, *_) = house.proxy.audit("user.login", stage="outer")
    assert first["addr"] == "192.0.2.7:4321"


async def test_rejects_connections_of_other_addresses(stage: Stage) -> None:
    answer, proxy = await answered(stage, ["192.0.2.0/24"])
    assert answer == b""
    await proxy.logged("127.0.0.1 is not in proxy_protocol_from")


async def test_fails_start_without_list_of_proxies(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), role())
    proxy.configure({"listen": [f"haproxy:tcp:{proxy.port}"]})
    checked = await proxy.command("config", "check")
    assert checked.code == 78
    assert "proxy_protocol_from" in checked.errors
