"""The last messages of a channel that the proxy ends."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.proxy.relay.admission import Direction
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32


def send_end(
    channel: Channel, to_channel: Direction, text: str, status: int, send: Callable[[int, bytes], None]
) -> bool:
    """End the user's channel: of a session with ``text`` on its stderr and an exit status.

    ``to_channel`` is what may be sent there, ``send`` sends a message that is not data. Returns whether there
    was room for ``text``.
    """
    told = False
    if text and channel.kind == b"session":
        line = (text + "\r\n").encode("utf-8", "replace")
        # OpenSSH ends the whole connection for extended data after EOF.
        told = len(line) <= to_channel.window and not to_channel.ended
        if told:
            channel.send(m.CHANNEL_EXTENDED_DATA, uint32(m.STDERR) + string(line))
        send(m.CHANNEL_REQUEST, m.exit_status(status))
    if not to_channel.ended:
        send(m.CHANNEL_EOF, b"")
    send(m.CHANNEL_CLOSE, b"")
    return told
