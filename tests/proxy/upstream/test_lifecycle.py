"""Each step of an upstream connection, from each state."""

from __future__ import annotations

import pytest

from conchrec.errors import LocalViolation
from conchrec.proxy.upstream.lifecycle import UpstreamLifecycle, UpstreamState

#: The states that each state may lead to.
TABLE = {
    "IDLE": "DIALING LOST",
    "DIALING": "VERIFYING LOST",
    "VERIFYING": "AUTHENTICATING LOST",
    "AUTHENTICATING": "READY LOST",
    "READY": "LOST",
    "LOST": "",
}


def test_table_has_each_state() -> None:
    assert [state.name for state in UpstreamState] == list(TABLE)


@pytest.mark.parametrize("after", TABLE)
@pytest.mark.parametrize("before", TABLE)
def test_allows_changes_of_table_only(before: str, after: str) -> None:
    lifecycle = UpstreamLifecycle()
    lifecycle.state = UpstreamState[before]
    if after in TABLE[before].split():
        lifecycle.enter(UpstreamState[after])
        assert lifecycle.state is UpstreamState[after]
    else:
        with pytest.raises(LocalViolation, match=f"from {before} to {after}"):
            lifecycle.enter(UpstreamState[after])
        assert lifecycle.state is UpstreamState[before]
