"""The bytes that the channels of one user hold: their limit, and their exact count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import HELD_BYTES_OF_USER, UserHeldBytes
from conchrec.proxy.relay.lane import HELD_BYTES, Lane
from conchrec.ssh import messages as m


def fill(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.push(m.CHANNEL_REQUEST, bytes(HELD_BYTES))


def test_limits_channels_of_user_together() -> None:
    """With a thousand sessions without a target, each of which holds as much as it may."""
    user, other = UserHeldBytes(), UserHeldBytes()
    lanes = [
        Lane(lambda message, body: None, lambda message, body: None, user.channel())
        for _ in range(2 * HELD_BYTES_OF_USER // HELD_BYTES)
    ]
    fill(lanes[: len(lanes) // 2 - 1])
    with pytest.raises(RemoteViolation, match="data of this user"):
        fill(lanes[len(lanes) // 2 - 1 :])
    assert user.bytes <= HELD_BYTES_OF_USER + 2 * HELD_BYTES
    other.channel().add(HELD_BYTES)


@given(st.lists(st.integers(0, 1000), max_size=50), st.booleans())
def test_counts_nothing_after_open_or_close(sizes: list[int], opens: bool) -> None:
    user = UserHeldBytes()
    channel = user.channel()
    lane = Lane(lambda message, body: None, lambda message, body: None, channel)
    for size in sizes:
        lane.push(m.CHANNEL_REQUEST, bytes(size))
    assert user.bytes == channel.bytes >= sum(sizes)
    if opens:
        lane.open()
        assert user.bytes == 0
    channel.close()
    assert user.bytes == 0
