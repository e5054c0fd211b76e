"""Scenarios: files that are moved."""

from __future__ import annotations

from fuzz.channels import programs as p
from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import Scene


def _packet(kind: int, number: int, rest: bytes) -> bytes:
    return w.text(bytes((kind,)) + w.u32(number) + rest)


def _long(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _handle(number: int) -> bytes:
    return w.text(w.u32(number))


@scenario
def sftp(codes: Codes) -> Scene:
    """Upload, download, rename, remove, and a file that is not there."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"subsystem", w.text(b"sftp"))
    scene.say(_packet(p.INIT, 3, b""))
    scene.note("upload")
    create = w.u32(p.WRITE_FLAG | p.CREATE | p.TRUNCATE) + w.u32(0)
    scene.say(_packet(p.OPEN, 1, w.text(b"/tmp/new") + create))
    scene.say(_packet(p.WRITE, 2, _handle(0) + _long(0) + w.text(b"contents\n")))
    scene.say(_packet(p.CLOSE, 3, _handle(0)))
    scene.note("download")
    scene.say(_packet(p.OPEN, 4, w.text(b"/etc/motd") + w.u32(p.READ_FLAG) + w.u32(0)))
    scene.say(_packet(p.READ, 5, _handle(1) + _long(0) + w.u32(32768)))
    scene.say(_packet(p.READ, 6, _handle(1) + _long(500) + w.u32(32768)))
    scene.say(_packet(p.CLOSE, 7, _handle(1)))
    scene.note("changes")
    scene.say(_packet(p.RENAME, 8, w.text(b"/tmp/new") + w.text(b"/tmp/old")))
    scene.say(_packet(p.REMOVE, 9, w.text(b"/tmp/old")))
    scene.say(_packet(p.MKDIR, 10, w.text(b"/tmp/dir") + w.u32(0)))
    scene.say(_packet(p.OPEN, 11, w.text(b"/nowhere") + w.u32(p.READ_FLAG) + w.u32(0)))
    scene.user.eof_when_sent(0)
    scene.settle()
    scene.exit()
    return scene


@scenario
def sftp_malformed(codes: Codes) -> Scene:
    """An invalid packet: the session goes on, and its files are no longer in the account."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"subsystem", w.text(b"sftp"))
    scene.say(_packet(p.INIT, 3, b""))
    scene.say(_packet(p.OPEN, 1, w.text(b"/tmp/new") + w.u32(p.CREATE | p.WRITE_FLAG) + w.u32(0)))
    scene.say(w.u32(1 << 30) + b"nonsense")
    scene.exit(255)
    return scene


@scenario
def scp_to_target(codes: Codes) -> Scene:
    """The old protocol of scp, towards the target."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"scp -t /tmp"))
    scene.out(b"\0")
    scene.say(b"C0644 6 hello.txt\n")
    scene.out(b"\0")
    scene.say(b"hello\n\0")
    scene.out(b"\0")
    scene.user.eof_when_sent(0)
    scene.settle()
    scene.exit()
    return scene


@scenario
def scp_from_target(codes: Codes) -> Scene:
    """The old protocol of scp, from the target."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"scp -f /etc/hello.txt"))
    scene.say(b"\0")
    scene.out(b"C0644 6 hello.txt\n")
    scene.say(b"\0")
    scene.out(b"hello\n\0")
    scene.say(b"\0")
    scene.exit()
    return scene


@scenario
def git(codes: Codes) -> Scene:
    """A fetch of git: its bytes are counted."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"env", w.text(b"GIT_PROTOCOL") + w.text(b"version=2"), reply=False)
    scene.ask(b"exec", w.text(b"git-upload-pack '/srv/project.git'"))
    scene.out(b"000eversion 2\n0000")
    scene.say(b"0014command=ls-refs\n0000")
    scene.out(b"0000")
    scene.say(b"0000")
    scene.exit()
    return scene


@scenario
def file_copy_refused(codes: Codes) -> Scene:
    """``file_copy: no``: neither sftp nor scp starts."""
    scene = Scene(codes, options={"file_copy": False})
    scene.begin()
    scene.session(0)
    scene.ask(b"subsystem", w.text(b"sftp"))
    scene.session(1)
    scene.ask(b"exec", w.text(b"scp -t /tmp"), channel=1)
    return scene
