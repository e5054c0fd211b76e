"""A client's key pairs of sntrup761: when it offers the method, and that each exchange takes its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.kems import SNTRUP761, KemKeyPair
from conchrec.ssh.kex_helper import KeyExchangeRefused
from conchrec.ssh.kex_methods import SNTRUP_METHODS, SntrupKeyPairs
from conchrec.ssh.kex_worker import key_pair
from tests.support.pair import Pair
from tests.support.powers import KeyPairsAtOnce

ONLY = replace(MODERN, kex=SNTRUP_METHODS)


class KeyPairsLater(KeyPairsAtOnce):
    """Key pairs that are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[KemKeyPair]] = []
        self.cancelled = 0

    def take(self) -> Deferred[KemKeyPair]:
        def cancel(answer: Deferred[KemKeyPair]) -> None:
            self.cancelled += 1

        self.waiting.append(Deferred(cancel))
        return self.waiting[-1]

    def make(self) -> None:
        self.waiting.pop(0).callback(SNTRUP761.key_pair(*key_pair()))


@pytest.mark.parametrize("name", SNTRUP_METHODS)
def test_takes_new_key_pair_for_each_exchange(name: bytes) -> None:
    keys = KeyPairsAtOnce()
    pair = Pair(algorithms=MODERN, server_algorithms=replace(MODERN, kex=(name,)), client_key_pairs=keys)
    pair.secure()
    assert pair.client.kex.agreed_names[0] == pair.server.kex.agreed_names[0] == name
    assert keys.count == 1
    for count, end in ((1, pair.client), (2, pair.server)):
        end.rekey()
        pair.pump()
        assert (pair.client.rekeys, pair.server.rekeys, keys.count) == (count, count, count + 1)
    assert pair.client.lost is pair.server.lost is None


@pytest.mark.parametrize("has_source", [True, False])
def test_offers_no_sntrup761_without_key_pairs(has_source: bool) -> None:
    keys = KeyPairsAtOnce()
    keys.available = False
    source: SntrupKeyPairs | None = keys if has_source else None
    server = replace(MODERN, kex=MODERN.kex[1:])
    pair = Pair(algorithms=MODERN, server_algorithms=server, client_key_pairs=source)
    pair.secure()
    assert pair.client.kex.agreed_names[0] == b"curve25519-sha256"
    pair.client.rekey()
    proposal = pair.client.kex.proposal
    assert proposal is not None
    assert not set(SNTRUP_METHODS) & set(proposal.kex)
    assert keys.count == 0


def test_takes_no_key_pair_for_other_method() -> None:
    keys = KeyPairsAtOnce()
    pair = Pair(algorithms=MODERN, client_key_pairs=keys).secure()
    assert pair.client.kex.agreed_names[0] == b"mlkem768x25519-sha256"
    assert keys.count == 0


def test_later_exchange_offers_what_first_one_offered() -> None:
    """The key pairs may run out in between: the connection waits for one, and does not end."""
    keys = KeyPairsLater()
    pair = Pair(algorithms=ONLY, client_key_pairs=keys)
    pair.pump()
    keys.make()
    pair.secure()
    keys.available = False
    pair.server.rekey()
    pair.pump()
    assert pair.client.rekeys == 0
    keys.make()
    pair.pump()
    assert pair.client.rekeys == pair.server.rekeys == 1


def test_end_of_connection_cancels_request_for_key_pair() -> None:
    keys = KeyPairsLater()
    pair = Pair(algorithms=ONLY, client_key_pairs=keys)
    pair.pump()
    assert len(keys.waiting) == 1
    pair.cut()
    assert keys.cancelled == 1


def test_refused_key_pair_ends_connection() -> None:
    keys = KeyPairsLater()
    pair = Pair(algorithms=ONLY, client_key_pairs=keys)
    pair.pump()
    keys.waiting.pop().errback(KeyExchangeRefused("too many key exchanges are waiting; try again later"))
    pair.pump()
    assert pair.client.lost is not None
    assert "too many key exchanges are waiting" in str(pair.client.lost.error)
