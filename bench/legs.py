"""Which algorithms stock programs and conchrec agree upon, leg by leg, on both ways to the target."""

from __future__ import annotations

import re

from bench.scene import HOST, Route, make_scene
from tests.support.stage import Stage
from tests.support.wait import fact

_KEX = re.compile(r"debug1: kex: algorithm: (\S+)")
_CIPHER = re.compile(r"debug1: kex: (?:server->client|client->server) cipher: (\S+) MAC: (\S+)")


async def negotiated(stage: Stage) -> dict[str, str]:
    """For each leg, in words: key exchange, cipher and MAC."""
    scene = await make_scene(stage, sshd=["LogLevel DEBUG1"])
    algorithms: dict[str, str] = {}
    algorithms |= await _seen_by_ssh(scene.yardstick, "sshd")
    # sshd tunnels the inner connection to the target, so that is its third leg, too.
    target = scene.house.target
    at = len(target.log)
    algorithms |= await _seen_by_ssh(scene.ours, "conchrec")
    log = await fact(
        lambda: found_in if len(_CIPHER.findall(found_in := target.log[at:])) >= 2 else None,
        lambda: f"the target does not say what was agreed upon:\n{target.log}",
    )
    algorithms["conchrec – target"] = _agreed(log, 0)
    return algorithms


async def _seen_by_ssh(route: Route, name: str) -> dict[str, str]:
    done = await route.ssh("-v", HOST, "true")
    inner = "target, tunnelled" if name == "sshd" else "conchrec as the target"
    return {
        f"ssh – {name} (outer)": _agreed(done.errors, 0),
        f"ssh – {inner} (inner)": _agreed(done.errors, 1),
    }


def _agreed(log: str, connection: int) -> str:
    """Of the n-th connection in a log; both directions of all of ours are alike."""
    exchange = _KEX.findall(log)[connection]
    cipher, mac = _CIPHER.findall(log)[2 * connection]
    return f"{exchange}, {cipher}" + ("" if mac == "<implicit>" else f", {mac}")
