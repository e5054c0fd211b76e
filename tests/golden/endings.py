"""Scenarios: sessions that end otherwise than by themselves."""

from __future__ import annotations

import resource

from conchrec.access.lock_file import Locks
from conchrec.access.locks import Lock, LockKind
from fuzz.channels import wire as w
from fuzz.channels.server import Manners
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import Scene
from tests.golden.sessions import PTY


def _start_session(scene: Scene, *, pty: bool = False) -> None:
    scene.begin()
    scene.session()
    if pty:
        scene.ask(b"pty-req", PTY)
    scene.ask(b"exec", w.text(b"cat"))
    scene.out(b"$ ")


@scenario
def target_closes(codes: Codes) -> Scene:
    """The target ends the connection with a message, in the middle of a session."""
    scene = Scene(codes)
    _start_session(scene)
    assert scene.server is not None
    scene.server.transport.sendDisconnect(11, b"going down for reboot")
    scene.settle(3)
    return scene


@scenario
def target_hangs_up(codes: Codes) -> Scene:
    """The TCP connection to the target is lost."""
    scene = Scene(codes)
    _start_session(scene)
    scene.reactor.lines[1].cut()
    scene.settle(3)
    return scene


@scenario
def user_hangs_up(codes: Codes) -> Scene:
    """The user's connection is lost while a command runs."""
    scene = Scene(codes)
    _start_session(scene)
    scene.reactor.lines[0].cut()
    scene.settle(3)
    return scene


@scenario
def user_disconnects(codes: Codes) -> Scene:
    """The user's client leaves with a message."""
    scene = Scene(codes)
    _start_session(scene)
    assert scene.client is not None
    scene.client.transport.sendDisconnect(11, b"disconnected by user")
    scene.settle(3)
    return scene


@scenario
def user_disconnects_for_an_error(codes: Codes) -> Scene:
    """The user's client leaves with another reason; the target hears the same one."""
    scene = Scene(codes)
    _start_session(scene)
    assert scene.client is not None
    scene.client.transport.sendDisconnect(2, b"Bad packet length 1937006964.")
    scene.settle(6)
    return scene


def _locked(codes: Codes, kind: LockKind, name: str) -> Scene:
    scene = Scene(codes)
    scene.proxy.startService()
    _start_session(scene, pty=True)
    locks = Locks(scene.directory / "state", scene.proxy.context.services.now)
    locks.add(Lock(kind=kind, name=name, reason="audit"))
    scene.settle(5)
    return scene


@scenario
def user_locked(codes: Codes) -> Scene:
    """The user is locked in the middle of a session with a terminal."""
    return _locked(codes, LockKind.USER, "joe")


@scenario
def target_locked(codes: Codes) -> Scene:
    """The target is locked in the middle of a session."""
    return _locked(codes, LockKind.TARGET, "127.0.0.1")


@scenario
def login_locked(codes: Codes) -> Scene:
    """The login is locked in the middle of a session."""
    return _locked(codes, LockKind.LOGIN, "root")


@scenario
def session_locked(codes: Codes) -> Scene:
    """One session is locked; the connection goes on."""
    scene = Scene(codes)
    scene.proxy.startService()
    _start_session(scene)
    scene.session(1)
    scene.ask(b"exec", w.text(b"cat"), channel=1)
    (first, _) = scene.sids()
    locks = Locks(scene.directory / "state", scene.proxy.context.services.now)
    locks.add(Lock(kind=LockKind.SESSION, name=first))
    scene.settle(5)
    scene.exit(channel=1)
    return scene


@scenario
def session_time_over(codes: Codes) -> Scene:
    """``max_session_ttl`` is over."""
    scene = Scene(codes, options={"max_session_ttl": "60s"})
    _start_session(scene)
    scene.settle(61)
    scene.settle(3)
    return scene


@scenario
def client_idle(codes: Codes) -> Scene:
    """``client_idle_timeout`` is over; keepalives of the target do not count."""
    scene = Scene(codes, options={"client_idle_timeout": "60s"})
    _start_session(scene)
    scene.settle(61)
    scene.settle(3)
    return scene


@scenario
def proxy_stops(codes: Codes) -> Scene:
    """The proxy is stopped."""
    scene = Scene(codes)
    scene.proxy.startService()
    _start_session(scene)
    scene.proxy.stopService()
    scene.settle(5)
    return scene


@scenario
def start_unanswered(codes: Codes) -> Scene:
    """The target never answers the request to start."""
    scene = Scene(codes, manners=(Manners(program="sink", silent=True),))
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.settle(61)
    return scene


def disk_fails(scene: Scene) -> None:
    """Output that does not fit the cast's file: the system calls for more than a megabyte fail."""
    _start_session(scene)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        for _ in range(60):
            scene.out(b"x" * 30_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    scene.exit()


@scenario
def recording_fails(codes: Codes) -> Scene:
    """The recording cannot be written any more, under ``record: strict``: the session ends."""
    scene = Scene(codes, options={"record": "strict"})
    disk_fails(scene)
    return scene


@scenario
def recording_fails_best_effort(codes: Codes) -> Scene:
    """The same under ``record: best_effort``: the session goes on."""
    scene = Scene(codes, options={"record": "best_effort"})
    disk_fails(scene)
    return scene


@scenario
def disk_full(codes: Codes) -> Scene:
    """The disk is almost full when a session begins."""
    scene = Scene(codes, settings={"recordings": {"min_free": "900000GiB"}})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    return scene


@scenario
def passthrough(codes: Codes) -> Scene:
    """``session_recording: off``: the client speaks with the target itself."""
    scene = Scene(codes, settings={"session_recording": "off"}, shows=50)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.exit()
    return scene
