"""Scenarios: ports, sockets, X11 and agents."""

from __future__ import annotations

from fuzz.channels import wire as w
from fuzz.channels.client import BACK
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import PACKET, WINDOW, Scene

DIRECT = w.text(b"db1.example.com") + w.u32(5432) + w.text(b"127.0.0.1") + w.u32(40000)
LISTEN = w.text(b"127.0.0.1") + w.u32(8080)
FORWARDED = w.text(b"127.0.0.1") + w.u32(8080) + w.text(b"10.0.0.9") + w.u32(40001)
SUCCESS, FAILURE, IDENTITIES = b"\x06", b"\x05", b"\x0b"


@scenario
def local_forward(codes: Codes) -> Scene:
    """``ssh -L``: a port and a socket at the target."""
    scene = Scene(codes, options={"port_forwarding": True})
    scene.begin()
    scene.user.open(0, b"direct-tcpip", WINDOW, PACKET, DIRECT, generous=True)
    scene.settle()
    scene.say(b"query")
    scene.out(b"rows")
    scene.user.eof_when_sent(0)
    scene.settle()
    scene.target.eof(0)
    scene.target.close(0)
    scene.settle()
    path = w.text(b"/run/db.sock") + w.text(b"") + w.u32(0)
    scene.user.open(1, b"direct-streamlocal@openssh.com", WINDOW, PACKET, path, generous=True)
    scene.settle()
    scene.user.close(1)
    scene.settle()
    return scene


@scenario
def local_forward_cut(codes: Codes) -> Scene:
    """The TCP connection to the target is lost in the middle of a transfer: the user's client must not take
    it for the end of the data."""
    scene = Scene(codes, options={"port_forwarding": True})
    scene.begin()
    scene.user.open(0, b"direct-tcpip", WINDOW, PACKET, DIRECT, generous=True)
    scene.settle()
    scene.out(b"the first half")
    scene.reactor.lines[1].cut()
    scene.settle(3)
    return scene


@scenario
def local_forward_refused(codes: Codes) -> Scene:
    """The role does not allow it; a malformed one is refused, too."""
    scene = Scene(codes, options={"port_forwarding": False})
    scene.begin()
    scene.user.open(0, b"direct-tcpip", WINDOW, PACKET, DIRECT, generous=True)
    scene.user.open(1, b"direct-tcpip", WINDOW, PACKET, w.text(b"db1"), generous=True)
    scene.user.open(2, b"tun@openssh.com", WINDOW, PACKET, w.u32(1), generous=True)
    scene.settle()
    return scene


@scenario
def nested_ssh_refused(codes: Codes) -> Scene:
    """SSH in a forward, where the role says ``nested_ssh: no``."""
    scene = Scene(codes, options={"port_forwarding": True, "nested_ssh": False})
    scene.begin()
    scene.user.open(0, b"direct-tcpip", WINDOW, PACKET, DIRECT, generous=True)
    scene.settle()
    scene.say(b"SSH-2.0-OpenSSH_9.2\r\n")
    return scene


@scenario
def remote_forward(codes: Codes) -> Scene:
    """``ssh -R``: granted, used, cancelled; and one that the target refuses."""
    scene = Scene(codes, options={"port_forwarding": True})
    scene.begin()
    scene.user.ask(w.Request(b"tcpip-forward", True, LISTEN))
    scene.settle()
    scene.target.answer(True)
    scene.settle()
    scene.target.open(b"forwarded-tcpip", WINDOW, PACKET, FORWARDED)
    scene.settle()
    scene.target.output(BACK, False, b"hello")
    scene.settle()
    scene.user.data(BACK, b"hello back")
    scene.settle()
    scene.user.close(BACK)
    scene.settle()
    scene.user.ask(w.Request(b"cancel-tcpip-forward", True, LISTEN))
    scene.settle()
    scene.target.answer(True)
    scene.settle()
    scene.user.ask(w.Request(b"tcpip-forward", True, w.text(b"") + w.u32(80)))
    scene.settle()
    scene.target.answer(False)
    scene.settle()
    return scene


@scenario
def remote_forward_cut(codes: Codes) -> Scene:
    """The same loss as ``local_forward_cut``, for a channel that the target opened."""
    scene = Scene(codes, options={"port_forwarding": True})
    scene.begin()
    scene.user.ask(w.Request(b"tcpip-forward", True, LISTEN))
    scene.settle()
    scene.target.answer(True)
    scene.settle()
    scene.target.open(b"forwarded-tcpip", WINDOW, PACKET, FORWARDED)
    scene.settle()
    scene.target.output(BACK, False, b"the first half")
    scene.settle()
    scene.reactor.lines[1].cut()
    scene.settle(3)
    return scene


@scenario
def remote_forward_refused(codes: Codes) -> Scene:
    """The role does not allow it, and the target opens one that nobody requested."""
    scene = Scene(codes, options={"port_forwarding": False})
    scene.begin()
    scene.user.ask(w.Request(b"tcpip-forward", True, LISTEN))
    scene.settle()
    scene.target.open(b"forwarded-tcpip", WINDOW, PACKET, FORWARDED)
    scene.settle()
    return scene


@scenario
def x11(codes: Codes) -> Scene:
    """X11: requested, opened by the target, closed."""
    scene = Scene(codes, options={"x11_forwarding": True})
    scene.begin()
    scene.session()
    cookie = b"\0" + w.text(b"MIT-MAGIC-COOKIE-1") + w.text(b"00ff") + w.u32(0)
    scene.ask(b"x11-req", cookie)
    scene.ask(b"exec", w.text(b"xterm"))
    scene.target.open(b"x11", WINDOW, PACKET, w.text(b"127.0.0.1") + w.u32(40002))
    scene.settle()
    scene.target.output(BACK, False, b"l\0\0\0")
    scene.settle()
    scene.target.close(BACK)
    scene.settle()
    scene.exit()
    return scene


@scenario
def x11_refused(codes: Codes) -> Scene:
    """The role does not allow X11."""
    scene = Scene(codes, options={"x11_forwarding": False})
    scene.begin()
    scene.session()
    scene.ask(b"x11-req", b"\0" + w.text(b"MIT-MAGIC-COOKIE-1") + w.text(b"00ff") + w.u32(0))
    scene.ask(b"exec", w.text(b"xterm"))
    scene.exit()
    return scene


@scenario
def agent_forwarding(codes: Codes) -> Scene:
    """The agent goes on to the target, bound as a forwarded one; it lists its keys there."""
    scene = Scene(codes, options={"forward_agent": True})
    scene.begin()
    scene.session()
    scene.ask(b"auth-agent-req@openssh.com", reply=False)
    scene.ask(b"exec", w.text(b"ssh-add -l"))
    scene.target.open(b"auth-agent@openssh.com", WINDOW, PACKET, b"")
    scene.hides(BACK)
    scene.settle()
    scene.note("the agent takes session-bind@openssh.com")
    scene.user.data(BACK, w.text(SUCCESS))
    scene.settle()
    scene.target.output(BACK, False, w.text(IDENTITIES))
    scene.settle()
    scene.user.data(BACK, w.text(b"\x0c" + w.u32(0)))
    scene.settle()
    scene.target.output(BACK, False, w.text(b"\x13"))
    scene.settle()
    scene.target.close(BACK)
    scene.settle()
    scene.exit()
    return scene


@scenario
def agent_without_bind(codes: Codes) -> Scene:
    """An agent that does not know session-bind@openssh.com is not forwarded."""
    scene = Scene(codes, options={"forward_agent": True})
    scene.begin()
    scene.session()
    scene.ask(b"auth-agent-req@openssh.com", reply=False)
    scene.ask(b"exec", w.text(b"ssh-add -l"))
    scene.target.open(b"auth-agent@openssh.com", WINDOW, PACKET, b"")
    scene.hides(BACK)
    scene.settle()
    scene.user.data(BACK, w.text(FAILURE))
    scene.settle()
    scene.exit()
    return scene
