"""A program that prints what the ended connections of each scenario leave in the proxy.

``python -m tests.golden.left_objects`` prints a JSON object: for each scenario two lists of types, of the
main objects of connections that still exist, and of all objects in cycles of references, and a list of the
unexpected errors that were logged. It plays them with the garbage collector off, ends the connections, and
lets time pass. It is a program of its own, because pytest-twisted runs tests in greenlets, which keep the
frames of errors.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from unittest.mock import patch

from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs

from conchrec.proxy.inner.server import TargetServer
from conchrec.proxy.inner.session import Session
from conchrec.proxy.outer.server import OuterConnection
from conchrec.proxy.relay.passthrough import Passthrough
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.ssh.agent import AgentClient
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Channel, Connection
from conchrec.ssh.key_exchange import KeyExchange
from conchrec.ssh.transport_base import SSHTransport
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.userauth_server import UserAuthServer
from fuzz.channels import wire as w
from fuzz.channels.memory import End, Line
from tests.golden import test_scenarios
from tests.golden.codes import Codes
from tests.golden.endings import disk_fails
from tests.golden.registry import SCENARIOS
from tests.golden.scene import Scene
from tests.golden.second_factor import code, scene_with_codes, wait_for_question
from tests.golden.sessions import PTY

#: The main objects of a connection. None of them outlives it.
OWNERS = (
    SSHTransport, KeyExchange, Connection, Channel, Stream, UserAuthServer, UserAuthClient, AgentClient,
    OuterConnection, TargetServer, TargetAccess, Upstream, Tunnel, Session, Relay, SessionRecorder,
    Passthrough,
)  # fmt: skip
#: Seconds after which every timer of an ended connection has run.
SETTLED = 400.0
#: The flow below has more deliveries than this.
LEAST_DELIVERIES = 60

assert test_scenarios, "it registers the scenarios"


class _Interrupted(Exception):
    """The delivery at which the connections are cut."""


def _flow(scene: Scene) -> None:
    """A session on a terminal that ends, another one that goes on, and new keys."""
    scene.begin()
    for channel in (0, 1):
        scene.session(channel)
        scene.ask(b"pty-req", PTY, channel=channel)
        scene.ask(b"shell", channel=channel)
        scene.out(b"$ ", channel=channel)
    scene.exit()
    assert scene.transports is not None
    scene.transports[0].rekey()
    scene.settle()


def _all(lines: Sequence[Line]) -> Sequence[Line]:
    return lines


def _user(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[:1]


def _target(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[1:]


def _cut_everywhere(which: Callable[[Sequence[Line]], Sequence[Line]], codes: Codes) -> Scene:
    """Cut connections after each of the deliveries of a flow: in key exchanges, logins and sessions.

    Those that are not cut end later.
    """
    scene, deliver, count = Scene(codes), Line.deliver, 0
    for most in range(1, 10_000):
        left = most

        def counted(line: Line, source: End, size: int = 0) -> bool:
            nonlocal left
            moved = deliver(line, source, size)
            left -= moved
            if moved and not left:
                raise _Interrupted
            return moved

        try:
            with patch.object(Line, "deliver", counted):
                _flow(scene)
            break
        except _Interrupted:
            for line in which(scene.reactor.lines):
                line.cut()
            # The owners of what was cut have dropped their parts before the next delivery.
            scene.reactor.advance(0)
            scene.settle()
            scene.disconnect()
            count += 1
    assert count > LEAST_DELIVERIES
    return scene


def _limited_bandwidth(codes: Codes) -> Scene:
    """The connection ends while it pauses because of the bandwidth."""
    scene = Scene(codes, settings={"limits": {"bandwidth_per_user": "20KiB"}})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    scene.say(bytes(60_000))
    return scene


def _unanswered_question(codes: Codes) -> Scene:
    """The user leaves when the inner login asks for a code."""
    scene, secret = scene_with_codes(codes, "session")
    scene.answers = [code(scene, secret)]
    scene.begin()
    wait_for_question(scene)
    return scene


def _dropped_passthrough(codes: Codes) -> Scene:
    """The proxy ends the connection of the user in the turn in which a target is connected."""
    scene = Scene(codes, settings={"session_recording": "off"})

    def connect() -> Protocol:
        (connection,) = scene.proxy.context.registry.connections
        scene.reactor.callLater(-1, connection.end_with_reason, "the proxy is being stopped")
        return Protocol()

    scene.target_protocol = connect
    scene.come()
    scene.another_target()
    return scene


def _failed_sync(codes: Codes) -> Scene:
    """A recording that must be on disk before its messages are forwarded fails."""
    scene = Scene(codes, settings={"session_recording": "proxy-sync"}, options={"record": "strict"})
    disk_fails(scene)
    return scene


def _self_reference(codes: Codes) -> Scene:
    """A connection that refers to itself: it must be found."""
    scene = SCENARIOS["exec_status"](codes)
    assert scene.outer is not None
    transport = scene.outer.transport
    transport.itself = transport
    return scene


def _name(item: object) -> str:
    """Return the module and the name of the type; of a frame, those of its function."""
    if isinstance(item, FrameType):
        return f"{item.f_globals['__name__']}.{item.f_code.co_qualname}"
    return f"{type(item).__module__}.{type(item).__qualname__}"


def left_objects(play: Callable[[Codes], Scene]) -> tuple[list[str], list[str], list[str]]:
    """Play a scenario and end its connections. Return the types of what is left, and errors."""
    # The proxy of the scenario before.
    gc.collect()
    gc.disable()
    with capturedLogs() as logged:
        scene = play(Codes())
        scene.disconnect()
        scene.settle(SETTLED)
    scene.reactor.lines.clear()
    failures = [entry for entry in logged if "log_failure" in entry]
    errors = [f"{entry['log_format']}: {entry['log_failure'].getErrorMessage()}" for entry in failures]
    # They may refer to what is looked for.
    del failures, logged
    owners = sorted(_name(item) for item in gc.get_objects() if isinstance(item, OWNERS))
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    garbage = sorted(name for name in map(_name, gc.garbage) if name.startswith("conchrec."))
    gc.garbage.clear()
    scene.close()
    return owners, garbage, errors


#: What is played besides the scenarios.
MORE: dict[str, Callable[[Codes], Scene]] = {
    "cut everywhere": partial(_cut_everywhere, _all),
    "user cut everywhere": partial(_cut_everywhere, _user),
    "target cut everywhere": partial(_cut_everywhere, _target),
    "limited bandwidth": _limited_bandwidth,
    "unanswered question": _unanswered_question,
    "dropped passthrough": _dropped_passthrough,
    "failed sync": _failed_sync,
    "self reference": _self_reference,
}


def main() -> None:
    """Run the program."""
    gc.freeze()
    print(json.dumps({name: left_objects(play) for name, play in (SCENARIOS | MORE).items()}))


if __name__ == "__main__":
    main()
