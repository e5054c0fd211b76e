"""The helper process for slow key exchanges.

One contract is tested with the fake and the real process; tests with a clock use the fake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from conchrec.ssh.dh_groups import GROUP14, GROUP16
from conchrec.ssh.kems import SNTRUP761, KemKeyPair
from conchrec.ssh.kex_helper import (
    ANSWER_SECONDS,
    LAST_BACKOFF,
    MAX_WAITING_FOR_KEY_PAIR,
    STABLE_SECONDS,
    KeyExchangeHelper,
    KeyExchangeRefused,
)
from tests.support.helper import FakeProcess, Process, Processes, RealProcess
from tests.support.powers import result_of
from tests.support.wait import block, fact, in_time, reactor

BUSY = "too many key exchanges are waiting; try again later"


class Setting:
    """A helper with its processes; ``outcomes`` are the numbers of requests in the order of completion."""

    def __init__(self, processes: Processes, *, key_pairs_ahead: int = 0, **limits: int) -> None:
        self.processes = processes
        self.helper = KeyExchangeHelper(processes, key_pairs_ahead=key_pairs_ahead, **limits)
        self.helper.start()
        self.outcomes: list[int] = []
        self.count = 0

    @property
    def process(self) -> Process:
        return self.processes.started[-1]

    def ask(self, peer: str = "a", group: Any = GROUP14) -> Deferred[Any]:
        """Make a request whose result must be correct."""
        number, self.count = self.count, self.count + 1
        exponent = group.exponent()
        answer = self.helper.powers(peer, group.prime, exponent, (2, 5))

        def ended(result: object) -> object:
            self.outcomes.append(number)
            if not isinstance(result, Failure):
                assert result == (pow(2, exponent, group.prime), pow(5, exponent, group.prime))
            return result

        return answer.addBoth(ended)


@pytest.fixture(params=["fake", "real"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Setting]]:
    made: list[Setting] = []

    def setting(**limits: int) -> Setting:
        spawn = reactor.spawnProcess if request.param == "real" else None
        made.append(Setting(Processes(reactor, spawn), **limits))
        return made[-1]

    yield setting
    for entry in made:
        entry.helper.stop()
        block(fact(lambda entry=entry: not entry.process.is_alive, "the process does not end"))  # type: ignore[misc]


async def done(answer: Deferred[Any]) -> Any:
    return await in_time(answer, lambda: "no answer")


async def refused(answer: Deferred[Any]) -> str:
    with pytest.raises(KeyExchangeRefused) as refusal:
        await done(answer)
    return refusal.value.public


async def test_computes_powers(make: Callable[..., Setting]) -> None:
    setting = make()
    for group in (GROUP14, GROUP16):
        await done(setting.ask(group=group))
    powers = setting.helper.powers_of_peer(lambda: "b")
    assert await done(powers(23, 3, (2,))) == (8,)


async def test_serves_peers_in_turns(make: Callable[..., Setting]) -> None:
    """A peer's request passes all but one request of a peer with many."""
    setting = make()
    setting.process.freeze()
    answers = [setting.ask("flood") for _ in range(8)] + [setting.ask("other"), setting.ask("third")]
    setting.process.thaw()
    for answer in answers:
        await done(answer)
    assert setting.outcomes == [0, 1, 8, 9, 2, 3, 4, 5, 6, 7]


async def test_refuses_requests_above_limit_of_peer(make: Callable[..., Setting]) -> None:
    setting = make(max_of_peer=2)
    setting.process.freeze()
    first = [setting.ask("flood") for _ in range(3)]
    assert await refused(setting.ask("flood")) == BUSY
    other = setting.ask("other")
    setting.process.thaw()
    for answer in (*first, other):
        await done(answer)
    await done(setting.ask("flood"))


async def test_keeps_room_for_others_when_one_peer_floods(make: Callable[..., Setting]) -> None:
    """If the queue is full, the longest line loses its last request to a peer with a shorter line."""
    setting = make(max_of_peer=10, max_waiting=4)
    setting.process.freeze()
    flood = [setting.ask("flood") for _ in range(5)]
    assert await refused(setting.ask("flood")) == BUSY
    other = setting.ask("other")
    assert await refused(flood.pop()) == BUSY
    third = setting.ask("third")
    assert await refused(flood.pop()) == BUSY
    assert await refused(setting.ask("third")) == BUSY, "the others have no more"
    setting.process.thaw()
    for answer in (*flood, other, third):
        await done(answer)


async def test_removes_cancelled_request_from_queue(make: Callable[..., Setting]) -> None:
    setting = make(max_of_peer=2)
    setting.process.freeze()
    answers = [setting.ask() for _ in range(3)]
    for answer in answers[:2]:
        answer.cancel()
        with pytest.raises(CancelledError):
            await done(answer)
    last = setting.ask()
    setting.process.thaw()
    await done(answers[2])
    await done(last)
    assert setting.outcomes == [0, 1, 2, 3]


async def test_repeats_request_once_when_process_ends(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.process.freeze()
    hit, waiting = setting.ask(), setting.ask("other")
    with capturedLogs() as logged:
        setting.process.crash()
        await done(hit)
        await done(waiting)
    assert setting.outcomes == [0, 1]
    assert len(setting.processes.started) == 2
    assert any("it is restarted" in event["log_format"] for event in logged)


async def test_refuses_request_that_ends_two_processes(make: Callable[..., Setting]) -> None:
    """Later requests are answered."""
    setting = make()
    setting.process.freeze()
    hit, waiting = setting.ask(), setting.ask()
    setting.processes.freezes = True
    setting.process.crash()
    await fact(lambda: len(setting.processes.started) == 2, "it is not started again")
    setting.processes.freezes = False
    setting.process.crash()
    assert "could not compute the key exchange" in await refused(hit)
    await done(waiting)


async def test_repeats_request_until_nobody_kills_process(make: Callable[..., Setting]) -> None:
    """What kills it is not the request: another process does, or the kernel without memory."""
    setting = make(key_pairs_ahead=1)
    setting.process.freeze()
    hit = setting.ask()
    setting.processes.freezes = True
    for count in (2, 3, 4):
        setting.process.kill()
        await fact(lambda count=count: len(setting.processes.started) == count, "it is not started again")  # type: ignore[misc]
        assert setting.helper.has_key_pairs()
    setting.processes.freezes = False
    setting.process.kill()
    await done(hit)
    check(await done(setting.helper.key_pair("a")))
    await fact(lambda: setting.helper.key_pairs_made == 1, "no key pair is made ahead")


async def test_refuses_waiting_requests_on_stop(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.process.freeze()
    answers = [setting.ask(), setting.ask(), setting.ask("other")]
    setting.helper.stop()
    for answer in (*answers, setting.ask()):
        assert await refused(answer) == "the proxy is being stopped"
    setting.process.thaw()
    await fact(lambda: not setting.process.is_alive, "the process does not end")
    assert len(setting.processes.started) == 1, "it was started again"


# --- key pairs


def check(pair: KemKeyPair) -> bytes:
    """Use a key pair, and return its public key."""
    ciphertext, secret = SNTRUP761.encapsulate(pair.public)
    assert pair.decapsulate(ciphertext) == secret
    return pair.public


async def test_never_returns_key_pair_twice(make: Callable[..., Setting]) -> None:
    """Some are made ahead, and the others while the connection waits."""
    setting = make(key_pairs_ahead=2)
    key_pairs = setting.helper.key_pairs_of_peer(lambda: "a")
    assert key_pairs.are_available()
    waited = [key_pairs.take() for _ in range(3)]
    assert not any(answer.called for answer in waited)
    keys = [check(await done(answer)) for answer in waited]
    for _ in range(3):
        await fact(lambda: setting.helper.key_pairs_made == 2, "no key pair is made ahead")
        ready = [key_pairs.take(), key_pairs.take()]
        assert all(answer.called for answer in ready)
        keys += [check(await done(answer)) for answer in ready]
    assert len(set(keys)) == 9


async def test_makes_key_pairs_ahead_only_while_nobody_waits(make: Callable[..., Setting]) -> None:
    setting = make(key_pairs_ahead=3)
    await fact(lambda: setting.helper.key_pairs_made == 3, "no key pair is made ahead")
    setting.process.freeze()
    for _ in range(3):
        setting.helper.key_pair("a")
    answers = [setting.ask() for _ in range(3)]
    made = []
    for answer in answers:
        answer.addCallback(lambda _: made.append(setting.helper.key_pairs_made))
    setting.process.thaw()
    for answer in answers:
        await done(answer)
    # The first was begun before the requests came.
    assert made == [1, 1, 1]
    await fact(lambda: setting.helper.key_pairs_made == 3, "no key pair is made ahead")


async def test_offers_no_key_pair_while_many_wait(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.process.freeze()
    answers = [setting.ask(str(number)) for number in range(MAX_WAITING_FOR_KEY_PAIR)]
    # One peer with many requests delays nobody by more than one of them.
    answers += [setting.ask("1") for _ in range(MAX_WAITING_FOR_KEY_PAIR)]
    assert setting.helper.has_key_pairs()
    answers += [setting.ask("a")]
    assert not setting.helper.has_key_pairs()
    # A connection that began before gets one.
    pair = setting.helper.key_pair("b")
    setting.process.thaw()
    check(await done(pair))
    for answer in answers:
        await done(answer)
    assert setting.helper.has_key_pairs()


async def test_stops_key_pairs_when_they_end_two_processes(make: Callable[..., Setting]) -> None:
    """Powers are computed as before, and the key pairs that were made are used."""
    setting = make(key_pairs_ahead=2)
    await fact(lambda: setting.helper.key_pairs_made == 2, "no key pair is made ahead")
    setting.process.freeze()
    check(await done(setting.helper.key_pair("a")))
    setting.processes.freezes = True
    with capturedLogs() as logged:
        setting.process.crash()
        await fact(lambda: len(setting.processes.started) == 2, "it is not started again")
        setting.processes.freezes = False
        setting.process.crash()
        await done(setting.ask())
    assert any("cannot make key pairs" in event["log_format"] for event in logged)
    assert setting.helper.has_key_pairs()
    check(await done(setting.helper.key_pair("a")))
    assert not setting.helper.has_key_pairs()
    assert len(setting.processes.started) == 3


async def test_discards_key_pairs_on_stop(make: Callable[..., Setting]) -> None:
    setting = make(key_pairs_ahead=1)
    await fact(lambda: setting.helper.key_pairs_made == 1, "no key pair is made ahead")
    setting.helper.stop()
    assert setting.helper.key_pairs_made == 0
    assert not setting.helper.has_key_pairs()
    assert await refused(setting.helper.key_pair("a")) == "the proxy is being stopped"


def test_has_no_key_pairs_before_start_and_without_pqcrypto(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = KeyExchangeHelper(Processes(Clock()))
    assert not helper.has_key_pairs()
    monkeypatch.setattr(SNTRUP761, "is_available", lambda: False)
    clock = Clock()
    processes = Processes(clock)
    helper = KeyExchangeHelper(processes)
    helper.start()
    clock.pump([0] * 10)
    assert not helper.has_key_pairs()
    assert helper.key_pairs_made == 0


# --- the real process


async def test_starts_process_without_open_files_and_environment() -> None:
    """The process has three pipes, no sockets and no other files, and writes no core file."""
    os.environ["CONCHREC_TEST_SECRET"] = "hidden"
    read, write = os.pipe()
    os.set_inheritable(read, True)
    setting = Setting(Processes(reactor, reactor.spawnProcess))
    try:
        await done(setting.ask())
        assert isinstance(setting.process, RealProcess)
        proc = Path(f"/proc/{setting.process.pid}")
        files = {name: os.readlink(proc / "fd" / name) for name in os.listdir(proc / "fd")}
        assert set(files) == {"0", "1", "2"}
        assert all(link.startswith("pipe:") for link in files.values())
        assert b"CONCHREC_TEST_SECRET" not in (proc / "environ").read_bytes()
        assert os.readlink(proc / "cwd") == "/"
        limits = (proc / "limits").read_text().splitlines()
        (core,) = (line.split()[4:6] for line in limits if line.startswith("Max core file size"))
        assert core == ["0", "0"]
    finally:
        del os.environ["CONCHREC_TEST_SECRET"]
        os.close(read)
        os.close(write)
        setting.helper.stop()
    await fact(lambda: not setting.process.is_alive, "the process does not end")


@pytest.mark.parametrize("number", [1, 2, 15])
async def test_process_ignores_termination_signals(number: int) -> None:
    """Ctrl-C in a terminal and systemd's SIGTERM also reach the process; it runs until its input ends."""
    setting = Setting(Processes(reactor, reactor.spawnProcess))
    await done(setting.ask())
    assert isinstance(setting.process, RealProcess)
    os.kill(setting.process.pid, number)
    await done(setting.ask())
    assert len(setting.processes.started) == 1
    setting.helper.stop()
    await fact(lambda: not setting.process.is_alive, "the process does not end")


# --- time


def timed(**limits: int) -> tuple[Clock, Setting]:
    clock = Clock()
    return clock, Setting(Processes(clock), **limits)


def test_restarts_process_with_growing_delay() -> None:
    clock, setting = timed()
    pauses = []
    for _ in range(12):
        setting.process.crash()
        count, begin = len(setting.processes.started), clock.seconds()
        while len(setting.processes.started) == count:
            clock.advance(0.25)
        pauses.append(clock.seconds() - begin)
    assert pauses[0] <= 0.5
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_BACKOFF
    clock.advance(STABLE_SECONDS)
    setting.process.crash()
    clock.advance(0.5)
    assert setting.process.is_alive


def test_offers_key_pairs_while_process_is_restarted_soon() -> None:
    """A target that offers nothing else stays reachable; not while the process fails again and again."""
    clock, setting = timed()
    offers = []
    for _ in range(4):
        setting.process.crash()
        offers.append(setting.helper.has_key_pairs())
        count = len(setting.processes.started)
        while len(setting.processes.started) == count:
            clock.advance(0.25)
    assert offers == [True, True, False, False]
    clock.advance(STABLE_SECONDS)
    setting.process.crash()
    pair = setting.helper.key_pair("a")
    clock.pump([0.25] * 4)
    check(result_of(pair))


def test_restarts_killed_process_without_growing_delay() -> None:
    clock, setting = timed()
    for count in range(2, 8):
        setting.process.kill()
        assert setting.helper.has_key_pairs()
        clock.advance(0.5)
        assert len(setting.processes.started) == count


def test_retries_failed_start() -> None:
    clock = Clock()
    processes = Processes(clock)
    processes.refuses = 2
    setting = Setting(processes)
    answer = setting.ask()
    assert not processes.started
    clock.pump([0.25] * 20)
    assert setting.outcomes == [0]
    assert answer.called


def test_kills_process_that_does_not_answer() -> None:
    """The next process gets the request."""
    clock, setting = timed()
    setting.process.freeze()
    setting.ask()
    clock.advance(ANSWER_SECONDS - 1)
    assert setting.process.is_alive
    clock.pump([1, 0, 0.5, 0])
    assert [process.is_alive for process in setting.processes.started] == [False, True]
    assert setting.outcomes == [0]
    clock.advance(ANSWER_SECONDS)
    assert setting.process.is_alive, "an answer stops the watch"


def test_keeps_request_when_killed_process_answers_late() -> None:
    """As after the machine was suspended: the timer is due before the pipe is read."""
    clock, setting = timed()
    first = setting.process
    assert isinstance(first, FakeProcess)
    first.freeze()
    setting.ask()
    clock.callLater(ANSWER_SECONDS, first.thaw)
    clock.advance(ANSWER_SECONDS)
    clock.pump([0, 0, 0.5, 0])
    assert [process.is_alive for process in setting.processes.started] == [False, True]
    assert setting.outcomes == [0]


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"\0\0\0\5\0\0\0\x09x", b"\0\0\0\0"])
def test_kills_process_after_malformed_answer(junk: bytes) -> None:
    clock, setting = timed()
    setting.process.freeze()
    setting.ask()
    fake = setting.process
    assert isinstance(fake, FakeProcess)
    fake.answer(junk)
    fake.answer(junk)
    clock.pump([0, 0.5, 0])
    assert not fake.is_alive
    assert setting.outcomes == [0]


def test_logs_refusals_together() -> None:
    clock, setting = timed(max_of_peer=1)
    setting.process.freeze()
    with capturedLogs() as logged:
        for _ in range(12):
            setting.ask("flood").addErrback(lambda _: None)
        clock.advance(11)
        setting.ask("flood").addErrback(lambda _: None)
    assert [(event["count"], event["peer"]) for event in logged] == [(1, "flood"), (10, "flood")]
