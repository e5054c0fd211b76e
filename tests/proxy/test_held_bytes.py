"""What waits in the channels of one user has one limit, and is counted exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import USER_BYTES, UserHeldBytes
from conchrec.proxy.relay.lane import HELD_BYTES, Lane
from conchrec.ssh import messages as m


def fill(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.push(m.CHANNEL_REQUEST, bytes(HELD_BYTES))


def test_channels_of_one_user_share_a_limit() -> None:
    """A thousand sessions whose target is not there, each with as much as it may hold."""
    user, other = UserHeldBytes(), UserHeldBytes()
    lanes = [
        Lane(lambda message, body: None, lambda message, body: None, user.channel())
        for _ in range(2 * USER_BYTES // HELD_BYTES)
    ]
    fill(lanes[: len(lanes) // 2 - 1])
    with pytest.raises(RemoteViolation, match="data of this user"):
        fill(lanes[len(lanes) // 2 - 1 :])
    assert user.bytes <= USER_BYTES + 2 * HELD_BYTES
    other.channel().add(HELD_BYTES)


@given(st.lists(st.integers(0, 1000), max_size=50), st.booleans())
def test_what_goes_on_and_what_ends_is_not_counted(sizes: list[int], opens: bool) -> None:
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
