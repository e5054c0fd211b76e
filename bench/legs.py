"""The algorithms that stock programs and conchrec negotiate, for each connection of both routes."""

from __future__ import annotations

import re

from bench.scene import HOST, Route, make_scene
from tests.support.stage import Stage
from tests.support.wait import fact

_KEX = re.compile(r"debug1: kex: algorithm: (\S+)")
_CIPHER = re.compile(r"debug1: kex: (?:server->client|client->server) cipher: (\S+) MAC: (\S+)")


async def negotiated(stage: Stage) -> dict[str, str]:
    """Return key exchange, cipher and MAC of each connection, as text."""
    scene = await make_scene(stage, sshd=["LogLevel DEBUG1"])
    algorithms: dict[str, str] = {}
    algorithms |= await _logged_by_ssh(scene.yardstick, "sshd")
    # sshd forwards the inner connection to the target, so it has no third connection.
    target = scene.house.target
    at = len(target.log)
    algorithms |= await _logged_by_ssh(scene.ours, "conchrec")
    log = await fact(
        lambda: text if len(_CIPHER.findall(text := target.log[at:])) >= 2 else None,
        lambda: f"the target does not log the algorithms:\n{target.log}",
    )
    algorithms["conchrec – target"] = _algorithms(log, 0)
    return algorithms


async def _logged_by_ssh(route: Route, name: str) -> dict[str, str]:
    done = await route.ssh("-v", HOST, "true")
    inner = "target, forwarded" if name == "sshd" else "conchrec as the target"
    return {
        f"ssh – {name} (outer)": _algorithms(done.errors, 0),
        f"ssh – {inner} (inner)": _algorithms(done.errors, 1),
    }


def _algorithms(log: str, connection: int) -> str:
    """Return the algorithms of the n-th connection in a log; both directions have the same."""
    exchange = _KEX.findall(log)[connection]
    cipher, mac = _CIPHER.findall(log)[2 * connection]
    return f"{exchange}, {cipher}" + ("" if mac == "<implicit>" else f", {mac}")
