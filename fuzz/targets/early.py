"""The packet layer before any key is agreed on: bytes of strangers, to a server and to a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conchrec.ssh import numbers as a
from conchrec.ssh.kex_methods import SNTRUP_METHODS
from conchrec.ssh.packetcipher import Clear
from conchrec.ssh.wire import string, uint32
from fuzz.limits import Broken
from fuzz.mutation import MAX_LARGE
from fuzz.sequence import unpack
from fuzz.target import Each, Target
from fuzz.targets.linked import message, packed
from fuzz.targets.parsers import proposal
from tests.support.pair import HOST_KEY, Pair
from tests.support.powers import SameKeyPair

#: Of what a stranger has made us say, so much may wait.
UNSENT = 1 << 20
#: What is shorter may come a byte at a time.
SHORT = 400
VERSION = b"SSH-2.0-OpenSSH_9.2p1"


def _stream(data: bytes) -> bytes:
    """The messages as they go over the wire: those that begin with ``SSH-`` as lines, those that begin with
    0 as they are, all others in packets."""
    clear = Clear()
    pieces = []
    for number, each in enumerate(unpack(data)):
        if each.startswith(b"SSH-"):
            pieces.append(each + b"\r\n")
        elif each[:1] == b"\0":
            pieces.append(each[1:])
        elif each:
            pieces.append(clear.seal(number, each))
    return b"".join(pieces)


def _connection(to_server: bool) -> Callable[[bytes], None]:
    def connect(data: bytes) -> None:
        pair = Pair(connect=False, client_key_pairs=SameKeyPair())
        end, line = (pair.server, pair.server_line) if to_server else (pair.client, pair.client_line)
        made: Any = end
        made.makeConnection(line)
        stream = _stream(data)
        step = (MAX_LARGE, 300, 1, 7)[len(data) % 4] if len(stream) < SHORT else MAX_LARGE
        for at in range(0, len(stream), step):
            end.dataReceived(stream[at : at + step])
        if len(line.unsent) > UNSENT:
            raise Broken(f"{len(line.unsent)} bytes are said to a stranger")
        pair.clock.advance(600)
        pair.cut()
        if end.lost is None or end.lost.describe() == "internal error":
            raise Broken("internal error") from (end.lost.error if end.lost is not None else None)
        if calls := pair.clock.getDelayedCalls():
            raise Broken(f"calls are left: {calls}")

    return connect


def _corpus() -> list[bytes]:
    init = message(a.KEXINIT, proposal())
    curve = message(a.KEXINIT, proposal((b"curve25519-sha256",)))
    nist = message(a.KEXINIT, proposal((b"ecdh-sha2-nistp256",)))
    sntrup = message(a.KEXINIT, proposal(SNTRUP_METHODS[:1]))
    value = message(a.KEX_FIRST, string(b"\x09" + bytes(31)))
    signature = string(b"ssh-ed25519") + string(bytes(64))
    blob = HOST_KEY.get(b"ssh-ed25519").blob()[:19] + bytes(32)
    reply = message(a.KEX_REPLY, string(blob) + string(b"\x09" + bytes(31)) + string(signature))
    # The lengths of sntrup761x25519-sha512.
    long_value = message(a.KEX_FIRST, string(bytes(1158) + b"\x09" + bytes(31)))
    long_reply = message(
        a.KEX_REPLY, string(blob) + string(bytes(1039) + b"\x09" + bytes(31)) + string(signature)
    )
    keys = message(a.NEWKEYS)
    goodbye = message(a.DISCONNECT, uint32(11) + string(b"bye") + string(b""))
    small = (
        message(a.IGNORE, string(b"x")),
        message(a.DEBUG, b"\1" + string(b"x") + string(b"")),
        message(a.UNIMPLEMENTED, uint32(0)),
        message(a.SERVICE_REQUEST, string(b"ssh-userauth")),
        message(a.EXT_INFO, uint32(1) + string(b"server-sig-algs") + string(b"ssh-ed25519")),
        message(a.PING, string(b"x")),
        goodbye,
    )
    return packed(
        (VERSION, init, message(a.KEX_FIRST, string(bytes(1216))), keys),
        (VERSION, curve, value, keys, b"\0" + bytes(64)),
        (VERSION, sntrup, long_value, keys),
        (VERSION, sntrup, long_reply, keys),
        (VERSION, nist, message(a.KEX_FIRST, string(b"\4" + bytes(64)))),
        (VERSION, curve, reply, keys),
        (VERSION, init, reply, keys),
        (VERSION, *small[:4]),
        (VERSION, *small[4:]),
        (VERSION, curve, goodbye),
        (b"\0hello\r\nworld\r\n", b"SSH-1.99-x", curve),
        (VERSION, b"\0\0\0\x00\x0c\x0a", curve),
        (VERSION, b"\0" + VERSION * 4),
    )


def _target(to_server: bool) -> Target:
    side = "server" if to_server else "client"
    return Target(
        name=f"early-{side}",
        about=f"the packet layer of a {side} before the first keys: conchrec/ssh/transport.py and below",
        corpus=_corpus,
        begin=lambda: Each(_connection(to_server)),
        packed=True,
    )


SERVER, CLIENT = _target(True), _target(False)
