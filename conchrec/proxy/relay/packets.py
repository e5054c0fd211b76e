"""Data in packets that the other end takes (RFC 4254, 5.2: the maximum packet size)."""

from __future__ import annotations

from conchrec.errors import ConchrecError
from conchrec.proxy.relay.admission import DATA_HEADER
from conchrec.reasons import ReasonCode
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string

#: The most packets that one packet is split into, in one turn of the reactor. Peers that respect the maximum
#: packet size need far fewer; a channel with packets of one byte would delay all other users.
PIECES_MOST = 256


def check_split(message: int, body: bytes, most: int) -> None:
    """Before data is observed. Raises ConchrecError where splitting it would take too long."""
    if message in DATA_HEADER and len(body) > most * PIECES_MOST:
        raise ConchrecError(
            f"data packets are too large for the other side, whose maximum packet size is {most} bytes",
            code=ReasonCode.PACKETS_DO_NOT_FIT,
        )


def send_split(channel: Channel, message: int, body: bytes, most: int) -> None:
    """Send data in packets that hold ``most`` bytes of it."""
    header = DATA_HEADER[message]
    if len(body) - header <= most:
        channel.send(message, body)
        return
    prefix = body[: header - 4]
    for start in range(header, len(body), most):
        channel.send(message, prefix + string(body[start : start + most]))
