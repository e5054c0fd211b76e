"""Scenarios: what a user asks the proxy itself. The texts are in the golden messages."""

from __future__ import annotations

from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import Scene


@scenario
def proxy_commands(codes: Codes) -> Scene:
    """Each command that needs no agent, and wrong ones, with their exit status."""
    scene = Scene(codes)
    scene.come()
    for line in (b"", b"help", b"hosts", b"status", b"recordings", b"requests"):
        scene.command(line)
    scene.note("wrong ones")
    for line in (b"nonsense", b"help me", b"play 'x", b"play nothing", b"login", b"approve", b"sign --for 1"):
        scene.command(line)
    return scene


@scenario
def own_recordings(codes: Codes) -> Scene:
    """The user looks at a recording of a session of theirs."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", b"\0\0\0\2id")
    scene.out(b"uid=0(root)\n")
    scene.exit()
    (sid,) = scene.sids()
    scene.command(b"recordings")
    scene.command(b"text " + sid.encode())
    return scene
