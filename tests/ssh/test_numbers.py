"""The reason codes of DISCONNECT are those of RFC 4250 section 4.2.2; others are replaced."""

from __future__ import annotations

import pytest
from twisted.conch.ssh import transport

from conchrec.ssh.numbers import DisconnectReason


def test_uses_reason_numbers_of_conch() -> None:
    theirs = {
        name.removeprefix("DISCONNECT_"): number
        for name, number in vars(transport).items()
        if name.startswith("DISCONNECT_")
    }
    assert theirs == {reason.name: reason.value for reason in DisconnectReason}


@pytest.mark.parametrize("number", [1, 10, 15])
def test_keeps_assigned_reason(number: int) -> None:
    assert DisconnectReason.assigned(number) == number


@pytest.mark.parametrize("number", [None, 0, 16, 2**32 - 1])
def test_replaces_unassigned_reason(number: int | None) -> None:
    assert DisconnectReason.assigned(number) is DisconnectReason.BY_APPLICATION
