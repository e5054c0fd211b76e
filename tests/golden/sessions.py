"""Scenarios: sessions that go well, and what is requested in them."""

from __future__ import annotations

from fuzz.channels import wire as w
from fuzz.channels.server import Manners
from tests.golden.codes import Codes
from tests.golden.logins import TargetLogin
from tests.golden.registry import scenario
from tests.golden.scene import Scene

PTY = w.text(b"xterm-256color") + w.u32(80) + w.u32(24) + w.u32(0) + w.u32(0) + w.text(b"\x00")
SIZE = w.u32(100) + w.u32(30) + w.u32(0) + w.u32(0)
ENV = w.text(b"LANG") + w.text(b"C.UTF-8")


@scenario
def login(codes: Codes) -> Scene:
    """Every message from the first on, of a session that does nothing."""
    scene = Scene(codes, shows=0)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"true"))
    scene.exit()
    return scene


@scenario
def login_by_certificate(codes: Codes) -> Scene:
    """The target takes a key only: the proxy logs in by a certificate for this connection."""
    scene = Scene(codes, shows=50)
    scene.target_login = TargetLogin
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"true"))
    scene.exit()
    return scene


@scenario
def shell(codes: Codes) -> Scene:
    """A shell with a terminal that echoes, a new size, a signal and an exit status."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"pty-req", PTY)
    scene.ask(b"env", ENV, reply=False)
    scene.ask(b"shell")
    scene.out(b"root@web1:~# ")
    scene.say(b"id\r")
    scene.out(b"id\r\nuid=0(root)\r\nroot@web1:~# ")
    scene.ask(b"window-change", SIZE, reply=False)
    scene.ask(b"signal", w.text(b"INT"), reply=False)
    scene.exit(3)
    return scene


@scenario
def exec_status(codes: Codes) -> Scene:
    """A command with output on both streams and an exit status."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"uptime"))
    scene.out(b"up 3 days\n")
    scene.out(b"warning\n", error=True)
    scene.exit(1)
    return scene


@scenario
def exec_signal(codes: Codes) -> Scene:
    """A command that a signal ends."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"sleep 9"))
    ended = w.text(b"KILL") + b"\1" + w.text(b"out of memory") + w.text(b"en")
    scene.target.request(0, w.Request(b"exit-signal", False, ended))
    scene.target.eof(0)
    scene.target.close(0)
    scene.settle()
    return scene


@scenario
def stdin_and_eof(codes: Codes) -> Scene:
    """Input with an end, then output: neither overtakes the other."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"sort"))
    scene.say(b"b\n")
    scene.say(b"a\n")
    scene.user.eof_when_sent(0)
    scene.settle()
    scene.out(b"a\nb\n")
    scene.exit()
    return scene


@scenario
def env_refused(codes: Codes) -> Scene:
    """The target takes one variable and refuses the other."""
    scene = Scene(codes, manners=(Manners(program="sink", refuses=(b"env",)), Manners(program="sink")))
    scene.begin()
    scene.session(0)
    scene.ask(b"env", ENV)
    scene.ask(b"exec", w.text(b"env"))
    scene.exit()
    scene.session(1)
    scene.ask(b"env", ENV, channel=1)
    scene.ask(b"exec", w.text(b"env"), channel=1)
    scene.exit(channel=1)
    return scene


@scenario
def unknown_requests(codes: Codes) -> Scene:
    """A break, requests that conchrec does not know from both sides, and malformed ones."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"shell")
    scene.ask(b"break", w.u32(500))
    scene.ask(b"xon-xoff", b"\1", reply=False)
    scene.ask(b"ping@example.com", w.text(b"payload"))
    scene.ask(b"window-change", b"\0\0", reply=False)
    scene.target.request(0, w.Request(b"pong@example.com", True, b"payload"))
    scene.settle()
    scene.user.answer(True)
    scene.user.ask(w.Request(b"hello@example.com", True, b"payload"))
    scene.settle()
    scene.target.answer(True, b"answer")
    scene.settle()
    scene.exit()
    return scene


@scenario
def unknown_requests_refused(codes: Codes) -> Scene:
    """The same where the role says ``unknown_requests: no``."""
    scene = Scene(codes, options={"unknown_requests": False})
    scene.begin()
    scene.session()
    scene.ask(b"shell")
    scene.ask(b"ping@example.com", w.text(b"payload"))
    scene.target.request(0, w.Request(b"pong@example.com", True, b"payload"))
    scene.settle()
    scene.user.ask(w.Request(b"hello@example.com", True, b"payload"))
    scene.settle()
    scene.exit()
    return scene


@scenario
def second_start(codes: Codes) -> Scene:
    """A second start, a terminal and a variable after a start: refused, as sshd does."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"true"))
    scene.ask(b"exec", w.text(b"false"))
    scene.ask(b"pty-req", PTY)
    scene.ask(b"env", ENV)
    scene.exit()
    return scene


@scenario
def failed_subsystem_then_exec(codes: Codes) -> Scene:
    """The target refuses a subsystem; the same channel may then start a command."""
    scene = Scene(codes, manners=(Manners(program="sink", accepts=(False, True)),))
    scene.begin()
    scene.session()
    scene.ask(b"subsystem", w.text(b"netconf"))
    scene.ask(b"exec", w.text(b"netconf-server"))
    scene.exit()
    return scene


@scenario
def data_that_does_not_belong(codes: Codes) -> Scene:
    """Data before a start and after EOF, extended data of the user and of an unknown type."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.user.say(0, w.DATA, w.text(b"early"))
    scene.settle()
    scene.ask(b"exec", w.text(b"cat"))
    scene.user.say(0, w.EXTENDED, w.u32(1) + w.text(b"to stderr"))
    scene.target.rude_output(0, 7, b"of type 7")
    scene.settle()
    scene.user.eof_when_sent(0)
    scene.settle()
    scene.user.say(0, w.DATA, w.text(b"late"))
    scene.settle()
    scene.exit()
    return scene


@scenario
def rekey(codes: Codes) -> Scene:
    """New keys in the middle of a session, on all three connections."""
    scene = Scene(codes, rekey_bytes=32 * 1024)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.show_from(20)
    for _ in range(3):
        scene.say(b"x" * 12_000)
        scene.out(b"y" * 12_000)
    scene.exit()
    return scene


@scenario
def keepalive(codes: Codes) -> Scene:
    """Keepalives of both ends pass from end to end, on the connection and on a channel."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"shell")
    scene.user.ask(w.Request(b"keepalive@openssh.com", True, b""))
    scene.settle()
    scene.target.answer(False)
    scene.settle()
    scene.target.ask(w.Request(b"keepalive@openssh.com", True, b""))
    scene.settle()
    scene.user.answer(False)
    scene.settle()
    scene.target.request(0, w.Request(b"keepalive@openssh.com", True, b""))
    scene.settle()
    scene.user.answer(False)
    scene.settle()
    scene.exit()
    return scene


@scenario
def global_requests(codes: Codes) -> Scene:
    """The target's host keys are not relayed; no-more-sessions is obeyed, and passed on after a session."""
    scene = Scene(codes)
    scene.begin()
    scene.target.ask(w.Request(b"hostkeys-00@openssh.com", False, w.text(b"key")))
    scene.user.ask(w.Request(b"no-more-sessions@openssh.com", False, b""))
    scene.settle()
    scene.session()
    scene.ask(b"exec", w.text(b"true"))
    scene.exit()
    return scene


@scenario
def no_more_sessions(codes: Codes) -> Scene:
    """A session after no-more-sessions is refused."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"true"))
    scene.user.ask(w.Request(b"no-more-sessions@openssh.com", False, b""))
    scene.settle()
    scene.session(1)
    scene.exit()
    return scene


@scenario
def proxy_sync(codes: Codes) -> Scene:
    """``session_recording: proxy-sync``."""
    scene = Scene(codes, settings={"session_recording": "proxy-sync"})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.say(b"in\n")
    scene.out(b"out\n")
    scene.exit()
    return scene


@scenario
def input_recorded(codes: Codes) -> Scene:
    """``recordings.input: yes``, compressed."""
    scene = Scene(codes, settings={"recordings": {"input": True, "compress": True}})
    scene.begin()
    scene.session()
    scene.ask(b"pty-req", PTY)
    scene.ask(b"shell")
    scene.out(b"$ ")
    scene.say(b"id\r")
    scene.out(b"id\r\n")
    scene.exit()
    return scene


@scenario
def two_sessions(codes: Codes) -> Scene:
    """Two sessions of one connection, at the same time."""
    scene = Scene(codes)
    scene.begin()
    scene.session(0)
    scene.session(1)
    scene.ask(b"exec", w.text(b"one"))
    scene.ask(b"exec", w.text(b"two"), channel=1)
    scene.out(b"2\n", channel=1)
    scene.out(b"1\n")
    scene.exit()
    scene.exit(channel=1)
    return scene
