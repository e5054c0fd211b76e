"""Every cipher as a stream of packets: in pieces, with new keys, and with changed bytes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.ssh.algorithms import LEGACY
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.packetcipher import Opener, Sealer, is_aead, suite

SUITES = [
    (cipher, mac)
    for cipher in LEGACY.ciphers
    for mac in (LEGACY.macs[:1] if is_aead(cipher) else LEGACY.macs)
]
Names = tuple[bytes, bytes]

suites = st.sampled_from(SUITES)
messages = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8)


def ends(names: Names, seed: int = 0) -> tuple[Sealer, Opener]:
    """Return a Sealer and an Opener with keys from a seed."""
    made = suite(*names)
    key, iv, mac = (
        bytes((seed + at * step) % 256 for at in range(size))
        for size, step in ((made.key, 3), (made.iv, 5), (made.mac, 7))
    )
    return made.make(key, iv, mac), made.make(key, iv, mac)


def link(names: Names, first: int = 0) -> tuple[OutboundPackets, InboundPackets]:
    """Return both ends of a stream whose next packet has the number ``first``."""
    there, here = OutboundPackets(), InboundPackets()
    sealer, opener = ends(names)
    there.renew(sealer, reset=True)
    here.expect(opener, reset=True)
    here.renew()
    there.sequence = here.sequence = first
    return there, here


def sealed(there: OutboundPackets, payloads: Sequence[bytes]) -> list[bytes]:
    return [there.packet(payload[0], payload[1:]) for payload in payloads]


def read(here: InboundPackets) -> list[bytes]:
    """Return the packets that can be read now, up to an invalid one."""
    received = []
    try:
        while (payload := here.packet()) is not None:
            received.append(payload)
    except RemoteViolation:
        pass
    return received


@settings(max_examples=300, deadline=None)
@given(suites, messages, st.lists(st.integers(1, 40), max_size=60), st.integers(0, 2**32 - 1))
def test_opens_packets_in_pieces_of_any_size(
    names: Names, payloads: list[bytes], sizes: list[int], first: int
) -> None:
    """Also if the sequence number wraps."""
    there, here = link(names, first)
    stream = b"".join(sealed(there, payloads))
    received: list[bytes] = []
    at = 0
    for size in [*sizes, len(stream)]:
        here.feed(stream[at : at + size])
        at += size
        received += read(here)
        assert received == payloads[: len(received)]
    assert received == payloads
    assert len(here) == 0
    assert here.sequence == there.sequence == (first + len(payloads)) % 2**32
    assert here.counted == there.counted == len(stream)


@settings(max_examples=300, deadline=None)
@given(suites, messages, st.data())
def test_rejects_stream_changed_anywhere(names: Names, payloads: list[bytes], data: st.DataObject) -> None:
    """Bits are flipped; bytes are removed or inserted; packets are repeated, removed or swapped.

    The packets before the change are read, and none after it.
    """
    there, here = link(names)
    packets = sealed(there, payloads)
    good = b"".join(packets)
    change = data.draw(st.sampled_from(["flip", "cut", "insert", "twice", "drop", "swap"]))
    at = data.draw(st.integers(0, len(good) - 1))
    number = data.draw(st.integers(0, len(packets) - 1))
    if change == "flip":
        bad = good[:at] + bytes((good[at] ^ 1 << data.draw(st.integers(0, 7)),)) + good[at + 1 :]
    elif change == "cut":
        bad = good[:at] + good[at + data.draw(st.integers(1, 40)) :]
    elif change == "insert":
        bad = good[:at] + data.draw(st.binary(min_size=1, max_size=40)) + good[at:]
    elif change == "twice":
        bad = b"".join([*packets[: number + 1], packets[number], *packets[number + 1 :]])
    elif change == "drop":
        bad = b"".join(packets[:number] + packets[number + 1 :])
    else:
        other = data.draw(st.integers(0, len(packets) - 1))
        packets[number], packets[other] = packets[other], packets[number]
        bad = b"".join(packets)
    assume(bad != good)
    differs = next(
        (at for at, (byte, changed) in enumerate(zip(good, bad, strict=False)) if byte != changed), None
    )
    whole = len(good[: len(bad) if differs is None else differs])
    here.feed(bad)
    received = read(here)
    assert received == payloads[: len(received)]
    there_again, _ = link(names)
    reached = 0
    for count, payload in enumerate(payloads):
        reached += len(there_again.packet(payload[0], payload[1:]))
        if reached > whole:
            # Padding has random bytes and a fixed length, so equal payloads give packets of equal length.
            assert len(received) <= count
            break


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(suites, messages, st.booleans()), min_size=2, max_size=4), st.integers(0, 5))
def test_opens_packets_after_new_keys_anywhere(
    epochs: list[tuple[Names, list[bytes], bool]], size: int
) -> None:
    """With new keys, other ciphers, and sequence numbers that continue or restart.

    The packet after NEWKEYS uses the new keys, also if it arrives together with NEWKEYS.
    """
    there, here = OutboundPackets(), InboundPackets()
    stream = b"".join(sealed(there, [b"\x15"]))
    openers = []
    for seed, (names, payloads, reset) in enumerate(epochs):
        sealer, opener = ends(names, seed)
        there.renew(sealer, reset=reset)
        openers.append((opener, reset, len(payloads)))
        stream += b"".join(sealed(there, payloads))
    pieces = [stream[at : at + (size or len(stream))] for at in range(0, len(stream), size or len(stream))]
    received: list[bytes] = []
    left, waiting = 1, list(openers)
    for piece in pieces:
        here.feed(piece)
        while (payload := here.packet()) is not None:
            received.append(payload)
            left -= 1
            if not left and waiting:
                opener, reset, left = waiting.pop(0)
                here.expect(opener, reset=reset)
                here.renew()
    assert received == [b"\x15", *(payload for _, payloads, _ in epochs for payload in payloads)]


@settings(max_examples=200, deadline=None)
@given(suites, st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=100)), max_size=20))
def test_keeps_directions_independent(names: Names, turns: list[tuple[bool, bytes]]) -> None:
    """Each direction has its own state, also with the same keys."""
    links = (link(names), link(names))
    for up, payload in turns:
        there, here = links[up]
        here.feed(there.packet(payload[0], payload[1:]))
        assert here.packet() == payload


@settings(max_examples=200, deadline=None)
@given(
    suites, st.integers(0, 2), st.integers(0, 2**16), st.integers(0, 7), st.binary(min_size=1, max_size=40)
)
def test_rejects_packets_under_another_key(
    names: Names, which: int, at: int, bit: int, payload: bytes
) -> None:
    """One bit differs in the key, the IV or the MAC key. An -etm MAC does not depend on the cipher's key."""
    made = suite(*names)
    which = 2 if names[1].endswith(b"-etm@openssh.com") and not is_aead(names[0]) else which
    material = [bytearray(range(size)) for size in (made.key, made.iv, made.mac)]
    packet = made.make(*map(bytes, material)).seal(0, payload)
    assume(material[which])
    # DES ignores the lowest bit of each byte of its key.
    assume(not (names[0].startswith(b"3des") and which == 0 and bit == 0))
    material[which][at % len(material[which])] ^= 1 << bit
    here = InboundPackets()
    here.expect(made.make(*map(bytes, material)), reset=True)
    here.renew()
    here.feed(packet)
    assert read(here) == []
