"""The algorithms that are offered to clients and targets."""

from __future__ import annotations

import pytest

from conchrec.ssh.algorithms import COMPATIBLE, LEGACY, MODERN, UPSTREAM, USER_SIGNATURES, WEAK, Algorithms
from conchrec.ssh.host_key_check import CERTIFIED, PLAIN
from conchrec.ssh.kex_methods import kex_hash
from conchrec.ssh.packetcipher import is_aead, suite
from tests.support.powers import Run

ALL = (MODERN, COMPATIBLE, UPSTREAM, LEGACY)
BAD = (b"cbc", b"sha1", b"md5", b"none", b"3des", b"arcfour", b"umac", b"group1-", b"ssh-dss", b"-96")


def names_of(offer: Algorithms) -> tuple[bytes, ...]:
    return (*offer.kex, *offer.ciphers, *offer.macs)


@pytest.mark.parametrize("offer", [MODERN, COMPATIBLE, UPSTREAM])
def test_offers_no_weak_algorithm(offer: Algorithms) -> None:
    assert [name for name in names_of(offer) for bad in BAD if bad in name] == []


def test_legacy_adds_only_sha1_and_cbc() -> None:
    """SHA-1 and CBC come after all secure algorithms."""
    weak = (b"sha1", b"cbc")
    for legacy, sound in (
        (LEGACY.kex, UPSTREAM.kex),
        (LEGACY.ciphers, UPSTREAM.ciphers),
        (LEGACY.macs, UPSTREAM.macs),
    ):
        assert legacy[: len(sound)] == sound
        more = legacy[len(sound) :]
        assert more
        assert [name for name in more if name in WEAK and any(bad in name for bad in weak)] == list(more)
    assert not WEAK & set(names_of(UPSTREAM) + PLAIN + CERTIFIED)
    assert [offer.sha1 for offer in ALL] == [False, False, False, True]


def test_modern_has_no_nist_curve_and_no_mac_over_plaintext() -> None:
    assert not any(b"nistp" in name or b"diffie" in name for name in MODERN.kex)
    assert all(name.endswith(b"-etm@openssh.com") for name in MODERN.macs)


@pytest.mark.parametrize("offer", ALL)
def test_offers_only_implemented_algorithms_once(offer: Algorithms) -> None:
    for names in (offer.kex, offer.ciphers, offer.macs):
        assert len(set(names)) == len(names) > 0
    for kex in offer.kex:
        assert Run(kex).offer()
        assert kex_hash(kex)(b"").digest()
    for cipher in offer.ciphers:
        for mac in offer.macs:
            made = suite(cipher, mac)
            assert made.make(bytes(made.key), bytes(made.iv), bytes(made.mac))


@pytest.mark.parametrize("offer", ALL)
def test_offers_strongest_algorithm_first(offer: Algorithms) -> None:
    assert offer.kex[0] == b"mlkem768x25519-sha256"
    assert is_aead(offer.ciphers[0])
    aead = [is_aead(cipher) for cipher in offer.ciphers]
    assert aead == sorted(aead, reverse=True)
    etm = [mac.endswith(b"-etm@openssh.com") for mac in offer.macs]
    assert etm == sorted(etm, reverse=True)


@pytest.mark.parametrize("names", [USER_SIGNATURES, PLAIN, CERTIFIED])
def test_lists_no_sha1_signature_algorithm(names: tuple[bytes, ...]) -> None:
    assert [name for name in names for bad in (b"ssh-rsa", b"ssh-dss", b"sha1") if bad in name] == []
    assert len(set(names)) == len(names)
