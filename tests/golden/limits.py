"""Scenarios: limits of a user, and what a new configuration ends."""

from __future__ import annotations

from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import Scene


@scenario
def too_many_sessions_of_user(codes: Codes) -> Scene:
    """One session more than ``limits.sessions_per_user``; then targets are as many as there may be."""
    scene = Scene(codes, settings={"limits": {"sessions_per_user": 1}})
    scene.begin()
    scene.session(0)
    scene.ask(b"exec", w.text(b"cat"))
    scene.session(1)
    scene.another_target()
    scene.exit()
    return scene


@scenario
def too_many_target_connections(codes: Codes) -> Scene:
    """One connection to a target more than ``max_connections``."""
    scene = Scene(codes, options={"max_connections": 1}, settings={"session_recording": "off"})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.another_target()
    scene.exit()
    return scene


@scenario
def too_many_commands(codes: Codes) -> Scene:
    """One command for the proxy more than ``limits.commands``."""
    scene = Scene(codes, settings={"limits": {"commands": 1}}, options={"approval": ["all"]})
    scene.come()
    scene.command(b"requests --wait")
    scene.command(b"hosts")
    return scene


@scenario
def client_silent(codes: Codes) -> Scene:
    """The user's client answers no keepalive any more."""
    scene = Scene(codes, settings={"limits": {"keepalive_interval": "15s", "keepalive_count_max": 3}})
    scene.come()
    for _ in range(10):
        scene.settle(20)
    return scene


@scenario
def target_answers_no_keepalive(codes: Codes) -> Scene:
    """The target answers no keepalive any more, in the middle of a session."""
    scene = Scene(codes, settings={"limits": {"keepalive_interval": "15s", "keepalive_count_max": 3}})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    for _ in range(20):
        scene.settle(8)
        scene.jump.answer(False)
    return scene


@scenario
def recording_mode_changed(codes: Codes) -> Scene:
    """Nothing was recorded, and now it must be: what passes through ends."""
    scene = Scene(codes, settings={"session_recording": "off"})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.reconfigure(session_recording="proxy")
    return scene


@scenario
def role_changed(codes: Codes) -> Scene:
    """The role allows neither what runs nor a forward any more; another login goes on."""
    scene = Scene(codes, options={"port_forwarding": True})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    listen = w.text(b"127.0.0.1") + w.u32(8080)
    scene.user.ask(w.Request(b"tcpip-forward", True, listen))
    scene.settle()
    scene.target.answer(True)
    scene.settle()
    scene.set_options(exec=False)
    return scene


@scenario
def host_no_longer_allowed(codes: Codes) -> Scene:
    """No role allows the target any more."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.reconfigure(roles={"all": {"logins": ["root"], "hosts": ["192.0.2.0/24"]}})
    return scene


@scenario
def recordings_no_longer_shown(codes: Codes) -> Scene:
    """The role shows no recordings any more: a command that follows one ends."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.out(b"one line\n")
    (sid,) = scene.sids()
    scene.command(b"follow " + sid.encode())
    scene.set_options(recordings="none")
    scene.exit()
    return scene
