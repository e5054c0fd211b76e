"""The ciphers that keep an OpenSSL context."""

from __future__ import annotations

import gc

from conchrec.ssh.context_pool import ContextPool


class Owner:
    """A cipher that counts how often it lost its context."""

    def __init__(self) -> None:
        self.drops = 0

    def drop_context(self) -> None:
        """Count the loss."""
        self.drops += 1


def test_drops_oldest_context() -> None:
    pool, owners = ContextPool(2), [Owner() for _ in range(4)]
    for owner in owners:
        pool.add(owner)
    assert [owner.drops for owner in owners] == [1, 1, 0, 0]
    pool.add(owners[0])
    assert [owner.drops for owner in owners] == [1, 1, 1, 0]


def test_forgets_ended_connections() -> None:
    pool, live = ContextPool(2), Owner()
    pool.add(Owner())
    pool.add(live)
    gc.collect()
    pool.add(Owner())
    assert live.drops == 0
