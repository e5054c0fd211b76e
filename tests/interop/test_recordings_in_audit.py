"""Every recording has its start and its end in the audit, however its channel ends."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import paramiko
import pytest

from tests.support.house import House, build
from tests.support.otherclients import paramiko_connections
from tests.support.stage import Stage
from tests.support.wait import LONG, fact, in_thread


def leave(channel: paramiko.Channel) -> None:
    channel.close()


def eof(channel: paramiko.Channel) -> None:
    channel.shutdown_write()
    channel.close()


def env(channel: paramiko.Channel) -> None:
    channel.set_environment_variable("LC_ALL", "C")
    channel.close()


def terminal(channel: paramiko.Channel) -> None:
    channel.get_pty()
    channel.close()


def command(channel: paramiko.Channel) -> None:
    channel.exec_command("echo said")
    assert channel.recv_exit_status() == 0
    channel.close()


def hasty(channel: paramiko.Channel) -> None:
    channel.exec_command("sleep 60")
    channel.close()


def shell(channel: paramiko.Channel) -> None:
    channel.get_pty()
    channel.invoke_shell()
    channel.close()


def refused(channel: paramiko.Channel) -> None:
    with suppress(paramiko.SSHException):
        channel.invoke_subsystem("missing")
    channel.close()


ACTS: tuple[Callable[[paramiko.Channel], None], ...] = (
    leave, eof, env, terminal, command, hasty, shell, refused,
)  # fmt: skip


def recordings_of(house: House, event: str) -> Counter[str]:
    """How often, by the path of the recording."""
    return Counter(str(entry["recording"]) for entry in house.proxy.audit(event) if "recording" in entry)


@pytest.mark.parametrize("mode", ["proxy", "proxy-sync"])
async def test_audits_start_and_end_of_every_recording(stage: Stage, mode: str) -> None:
    house = await build(stage, settings={"session_recording": mode})
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    acts = [*ACTS, *random.Random(seed).choices(ACTS, k=8)]

    def act() -> None:
        outer, inner = paramiko_connections(house)
        try:
            for action in acts:
                action(inner.open_session(timeout=LONG))
            # The connection takes these with it.
            held = [inner.open_session(timeout=LONG) for _ in range(2)]
            assert len(held) == 2
        finally:
            inner.close()
            outer.close()

    await in_thread(act)
    await house.proxy.deserted()
    await house.proxy.stop()
    casts = Counter(str(path) for path in house.proxy.casts())
    assert recordings_of(house, "session.start") == recordings_of(house, "session.end") == casts
    kinds = {str(event["sid"]): event["kind"] for event in house.proxy.audit("session.end")}
    for path in house.proxy.casts():
        assert kinds[path.stem] == json.loads(path.with_suffix(".json").read_text())["kind"], path
    assert "none" in kinds.values() and "exec" in kinds.values()


async def test_audits_end_of_recordings_after_crash(stage: Stage) -> None:
    """What the process could not say any more the next one says."""
    house = await build(stage)

    held = []  # paramiko closes a channel that nobody holds

    def open_some() -> tuple[paramiko.Transport, paramiko.Transport]:
        outer, inner = paramiko_connections(house)
        for number in range(4):
            channel = inner.open_session(timeout=LONG)
            held.append(channel)
            if number % 2:
                channel.exec_command("echo begun; sleep 60")
                assert channel.recv(6) == b"begun\n"
        return outer, inner

    outer, inner = await in_thread(open_some)
    await fact(lambda: len(house.proxy.casts()) == 4, "all are recorded")
    await house.proxy.stop(signal.SIGKILL)
    await in_thread(inner.close)
    await in_thread(outer.close)
    await house.proxy.start()
    await house.proxy.audited("recording.recovered", count=4)
    casts = Counter(str(path) for path in house.proxy.casts())
    assert recordings_of(house, "recording.recovered") == casts
    assert len(recordings_of(house, "session.start")) == 2
