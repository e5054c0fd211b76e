"""The fuzzers find nothing in a short run, and the harness finds what is there to be found."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger

from conchrec.errors import RemoteViolation
from conchrec.ssh import messages as m
from conchrec.ssh.wire import Malformed, Reader, string, uint32
from fuzz.harness import BugFound, Result, fuzz, replay
from fuzz.limits import LIMITS, Broken, Limits, Stuck
from fuzz.mutation import MAX_LARGE, MAX_MESSAGES, Mutator
from fuzz.sequence import pack, unpack
from fuzz.target import Each, Session, Target
from fuzz.targets import TARGETS, parsers
from tests.test_layers import ROOT

RUNS = 20_000
SEED = 1
NAMES = [target.name for target in TARGETS]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what others have left in this one's memory would be in the way."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


Done = Future[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Done]]:
    """All fuzzers that are to run in this session, two at a time."""
    wanted = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_finds_nothing_in_short_run"
    ]
    with ThreadPoolExecutor(2) as pool:
        command = ("--runs", str(RUNS), "--seed", str(SEED))
        yield {name: pool.submit(python, "-m", "fuzz", name, *command) for name in wanted}


@pytest.mark.parametrize("name", NAMES)
def test_finds_nothing_in_short_run(started: dict[str, Done], name: str) -> None:
    done = started[name].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RUNS} inputs" in done.stdout


def test_lists_targets() -> None:
    done = python("-m", "fuzz", "--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == NAMES
    assert python("-m", "fuzz", "nonsense").returncode == 2


# --- bugs, planted into the real thing

PLANT = """
import sys
from pkgutil import resolve_name
owner, function = resolve_name({owner!r}), {function!r}
getattr(owner, function)  # AttributeError: it has another name now
setattr(owner, function, {plant})
from fuzz.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "target", "plant", "seen"),
    [
        ("parsers", "conchrec.ssh.messages.parse_uint32", "lambda extra: extra[3]", "IndexError"),
        ("server", "conchrec.ssh.messages.parse_uint32", "lambda extra: extra[3]", "IndexError"),
        (
            "login-server",
            "conchrec.ssh.userauth_server.verify_signature",
            "lambda *_: True",
            "somebody has logged in",
        ),
        ("certificates", "conchrec.ssh.certificate_checks.is_signed_by", "lambda *_: True", "nobody signed"),
        ("agent", "conchrec.ssh.agent.AgentClient.connection_lost", "lambda self: None", "were answered"),
        ("early-server", "conchrec.ssh.identification.one_line", "lambda b, _: b.decode()", "internal"),
        (
            "sftp",
            "conchrec.recording.capture.file_contents.FileContents.catch_up",
            "lambda self: self._early.popitem()",
            "KeyError",
        ),
        (
            "scp",
            "conchrec.recording.capture.scp._end_of_line",
            "lambda data, at: len(data)",
            "in these pieces",
        ),
    ],
)
def test_finds_planted_bug(name: str, target: str, plant: str, seen: str) -> None:
    """The fuzzer reports it, and the command that it prints fails with the bug and succeeds without."""
    owner, _, function = target.rpartition(".")
    script = PLANT.format(owner=owner, function=function, plant=plant)
    done = python("-c", script, name, "--runs", str(RUNS), "--seed", str(SEED))
    assert done.returncode == 1, done.stdout + done.stderr
    assert seen in done.stdout
    again = re.search(f"python -m fuzz {name} --input ([0-9a-f]+)\n", done.stdout)
    assert again is not None
    assert f"python -m fuzz {name} --runs {RUNS} --seed {SEED}\n" in done.stdout
    replayed = python("-c", script, name, "--input", again[1])
    assert (replayed.returncode, seen in replayed.stderr) == (1, True), replayed.stderr
    assert python("-m", "fuzz", name, "--input", again[1]).returncode == 0


# --- bugs of each kind, in a target of the test's own


def tried(
    function: Callable[[bytes], object],
    refusals: tuple[type[Exception], ...] = (),
    *,
    limits: Limits = LIMITS,
) -> Result:
    target = Target(
        name="planted",
        about="",
        corpus=lambda: [string(b"name") + uint32(7)],
        begin=lambda: Each(function, refusals),
    )
    return fuzz(target, runs=5000, seed=SEED, limits=limits)


def test_accepts_refusal() -> None:
    def refuse(data: bytes) -> None:
        raise Malformed("no")

    assert tried(refuse, (RemoteViolation,)).inputs == 5000


def test_reports_unexpected_exception() -> None:
    with pytest.raises(BugFound) as error:
        tried(lambda data: data[7], (RemoteViolation,))
    assert isinstance(error.value.__cause__, IndexError)
    assert len(error.value.data) <= 7


def test_reports_logged_failure() -> None:
    log = Logger()

    def swallow(data: bytes) -> None:
        try:
            Reader(data).string()[20]
        except Exception:
            log.failure("swallowed")

    with pytest.raises(BugFound) as error:
        tried(swallow)
    assert "swallowed" in str(error.value.__cause__)


@pytest.mark.parametrize("size", [1, 100_000])
def test_reports_kept_memory(size: int) -> None:
    """Many small things, and some large ones."""
    kept: list[object] = []
    with pytest.raises(Broken, match="memory grows"):
        tried(lambda data: kept.append([bytearray(size)]))
    kept.clear()
    gc.collect()


def test_reports_endless_loop() -> None:
    def spin(data: bytes) -> None:
        while len(data) == 11:
            try:
                sum(range(1000))
            except Exception:
                continue

    with pytest.raises(BugFound) as error:
        tried(spin, limits=replace(LIMITS, seconds=0.2))
    assert isinstance(error.value.__cause__, Stuck)
    assert len(error.value.data) == 11


class Lock:
    """A session that opens at ``1``, then ``2``, and then breaks."""

    def __init__(self) -> None:
        self.at = 0

    def feed(self, data: bytes) -> bool:
        for message in unpack(data):
            self.at += message == (b"1", b"2")[self.at]
            if self.at == 2:
                raise IndexError
        return message != b"end"

    def end(self) -> None:
        """Nothing has to hold."""


def lock() -> Session:
    return Lock()


def test_shortens_session() -> None:
    """What is reported are the inputs that are needed, as one."""
    target = Target(
        name="lock",
        about="",
        corpus=lambda: [pack([b"1"]), pack([b"noise"] * 3), pack([b"2"])],
        begin=lock,
        packed=True,
        length=50,
    )
    with pytest.raises(BugFound) as error:
        fuzz(target, runs=5000, seed=SEED)
    assert {b"1", b"2"} <= set(unpack(error.value.data))
    assert len(unpack(error.value.data)) <= 2 * MAX_MESSAGES
    with pytest.raises(IndexError):
        replay(target, error.value.data)


# --- inputs


@pytest.mark.parametrize("packed", [False, True])
def test_makes_same_inputs_from_same_seed(packed: bool) -> None:
    corpus = [pack([string(b"name") + uint32(7), b"x"]), pack([m.exit_status(3)])]

    def inputs(seed: str) -> list[bytes]:
        mutator = Mutator(seed, corpus, packed=packed)
        return [mutator.next() for _ in range(3000)]

    first = inputs("1")
    assert first == inputs("1")
    assert first != inputs("2")
    assert len(set(first)) > 1000
    assert MAX_LARGE * (MAX_MESSAGES + 1) > max(map(len, first)) > 10_000
    if packed:
        assert all(pack(unpack(packed_)) == packed_ for packed_ in first)


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_makes_same_corpus_each_time(target: Target) -> None:
    assert target.corpus() == target.corpus()
    assert len(set(target.corpus())) == len(target.corpus())


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_names_modules_that_exist(target: Target) -> None:
    paths = [path.removeprefix("conchrec/") for path in re.findall(r"[\w/]+\.py", target.about)]
    assert paths
    assert [path for path in paths if not any((ROOT / "conchrec").rglob(path))] == []


def test_has_valid_corpus_of_parsers() -> None:
    for parse, valid in parsers.PARSERS:
        for data in valid:
            parse(data)


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=40))
def test_packs_and_unpacks_sequences(messages: list[bytes], anything: bytes) -> None:
    assert unpack(pack(messages)) == messages
    assert unpack(pack(messages) + pack(messages)) == messages * 2
    assert all(message in anything for message in unpack(anything))
