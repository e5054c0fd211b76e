"""The fuzzer of channel messages finds nothing in a short run, and notices what is there to be noticed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from conchrec.proxy.inner import request_audit, session, start_requests
from conchrec.proxy.relay import admission, channel_end, message_flow
from conchrec.proxy.relay.admission import Direction, Disposition, MessageKind, StartPhase
from conchrec.recording.capture import recorder
from conchrec.recording.format import environment
from conchrec.recording.format.kept_text import KeptText
from conchrec.ssh import message_layouts
from fuzz.channels.command import problems, shortened
from fuzz.channels.oracle import forms, same
from fuzz.channels.programs import CLOSE, CREATE, INIT, OPEN, WRITE, WRITE_FLAG, SftpServer
from fuzz.channels.runner import Stacks
from fuzz.channels.script import VARIANTS, make_case
from fuzz.channels.wire import text, u32
from tests.test_fuzz import python

SEED = 1
CASES = 200


@pytest.mark.parametrize("seed", [SEED, None])
def test_finds_nothing(seed: int | None) -> None:
    """Without a seed also in new cases; but CI is to have the same result each time, as with Hypothesis."""
    new = SEED + 1 if os.environ.get("CI") else random.SystemRandom().randrange(1 << 32)
    chosen = new if seed is None else seed
    done = python("-m", "fuzz", "channels", "--seed", str(chosen), "--cases", str(CASES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases" in done.stdout


# --- each fix, taken back

Patch = pytest.MonkeyPatch


@pytest.fixture
def stacks() -> Iterator[Stacks]:
    stacks = Stacks()
    yield stacks
    stacks.close()


def _admit(phase: StartPhase, kind: MessageKind) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(admission.FROM_NEAR, (phase, kind), Disposition.PASS)


def _admit_start(phase: StartPhase) -> Callable[[Patch], None]:
    """Neither the admission nor the tracker of start requests minds the phase."""

    def plant(patch: Patch) -> None:
        _admit(phase, MessageKind.START)(patch)
        patch.setattr(start_requests.StartTracker, "_enter", lambda self, step: None)

    return plant


def _always(name: str, value: object) -> Callable[[Patch], None]:
    """An attribute of ``Direction`` that does not change."""
    return lambda patch: patch.setattr(Direction, name, property(lambda self: value, lambda self, new: None))


def _unsplit(patch: Patch) -> None:
    patch.setattr(channel_end, "send_data", lambda channel, message, body, most: channel.send(message, body))


def _raw(patch: Patch) -> None:
    patch.setattr(message_layouts, "rewrite", lambda layout, body: (body, b""))


def _lossy(patch: Patch) -> None:
    def keep(data: bytes, most: int) -> KeptText:
        return KeptText(text=data[:most].decode("utf-8", "replace"), size=len(data))

    for module in (environment, session, request_audit, start_requests):
        patch.setattr(module, "keep", keep, raising=False)


#: What takes the fix back, what the oracle then says, and a case near the first one that shows it.
PLANTS: dict[str, tuple[Callable[[Patch], None], str, int]] = {
    "packets larger than the maximum": (_unsplit, "the maximum is", 58),
    "data before a start": (_admit(StartPhase.NOT_STARTED, MessageKind.DATA), "was given", 5),
    "data after EOF": (_always("ended", False), "was given", 112),
    "extended data of a client": (
        _admit(StartPhase.STARTED, MessageKind.EXTENDED),
        "extended data from a client",
        22,
    ),
    "a second start": (_admit_start(StartPhase.STARTED), "the server accepted", 1),
    "a start beside another": (_admit_start(StartPhase.STARTING), "the server accepted", 127),
    "a start without a reply": (
        lambda patch: patch.setattr(message_flow, "_ANSWER_NEEDED", frozenset()),
        "the server",
        0,
    ),
    "surplus bytes": (_raw, "unrecorded", 2),
    "more than the window": (_always("window", 1 << 30), "and the window is", 110),
    "window of dropped data": (
        lambda patch: patch.setattr(channel_end.ChannelEnd, "_refund", lambda self, size: None),
        "stuck",
        22,
    ),
    "values of environment variables": (
        lambda patch: patch.setattr(recorder.SessionRecorder, "env", lambda self, name, value: None),
        "the variable",
        51,
    ),
    "bytes that are not UTF-8": (_lossy, "unrecorded", 77),
    "replies in their order": (
        lambda patch: patch.setattr(channel_end.ChannelEnd, "_send_reply", lambda self, success: None),
        "replies",
        0,
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_detects_each_reverted_fix(plant: str, stacks: Stacks, monkeypatch: pytest.MonkeyPatch) -> None:
    take_back, seen, first = PLANTS[plant]
    take_back(monkeypatch)
    for number in range(first, first + CASES):
        case = make_case(SEED, number)
        if any(seen in text for text in problems(stacks, case)):
            break
    else:
        pytest.fail(f"{CASES} cases find nothing")


def test_shortens_findings(stacks: Stacks, monkeypatch: pytest.MonkeyPatch) -> None:
    _unsplit(monkeypatch)
    stacks.only = "to the server.*the maximum is"
    case = next(case for number in range(CASES) if problems(stacks, case := make_case(SEED, number)))
    (text, *_) = problems(stacks, case)
    short = shortened(stacks, case, {text.partition(":")[0]}, kind=lambda line: line.partition(":")[0])
    assert problems(stacks, short)
    assert len(short.steps) <= len(case.steps) // 2


def test_makes_same_cases_from_same_seed() -> None:
    cases = [make_case(7, number) for number in range(200)]
    assert cases == [make_case(7, number) for number in range(200)]
    assert cases[0] != make_case(8, 0)
    assert {case.variant for case in cases} == set(range(len(VARIANTS)))
    assert {case.profile for case in cases} >= {"honest", "rude", "sftp", "forward", "mixed"}


def test_accounts_for_work_of_sftp_server() -> None:
    server = SftpServer()
    handle = text(u32(0))
    packets = [
        bytes([INIT]) + u32(3),
        bytes([OPEN]) + u32(1) + text(b"/x") + u32(WRITE_FLAG | CREATE) + u32(0),
        bytes([WRITE]) + u32(2) + handle + u32(0) + u32(0) + text(b"abc"),
        bytes([CLOSE]) + u32(3) + handle,
    ]
    for byte in b"".join(map(text, packets)):
        server.read(bytes([byte]))
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert server.done == [("write", "/x", f"3 {digest}")]
    assert bytes(server.files[b"/x"]) == b"abc"


@pytest.mark.parametrize(
    ("value", "shown", "holds"),
    [
        (b"plain", "plain", True),
        (b"plain", "plain ", False),
        (b"\xff\xfe", "\\xff\\xfe", True),
        (b"\xff\xfe", "\ufffd\ufffd", False),
        (b"a\x1b[m", "a\\x1b[m", True),
        ("ü".encode(), "ü", True),
    ],
)
def test_keeps_every_byte_in_texts(value: bytes, shown: str, holds: bool) -> None:
    assert same(value, shown) is holds
    assert (shown in forms(value)) is holds
