"""Random sequences of channel messages through the proxy to a stock sshd: audit and manifest say what a
helper behind sshd was given. The sequences come from the fuzzer (``python -m fuzz channels``)."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from fuzz.channels.client import ClientChannel
from fuzz.channels.live import CHANNEL, LiveClient, Sequence, make_sequence
from fuzz.channels.oracle import forms, same
from fuzz.channels.runner import client_step
from tests.support.house import House, build
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import fact, reactor

SEQUENCES = 16
SEED = 1
#: Long enough for messages to arrive in most cases; what is checked does not depend on it.
PAUSE = 0.03

HELPER = """#!{python}
import hashlib, json, os, sys, tempfile
given = sys.stdin.buffer.read()
account = {{
    "arguments": [os.fsencode(one).hex() for one in sys.argv[1:]],
    "environment": {{name.hex(): value.hex() for name, value in os.environb.items()}},
    "stdin": len(given),
    "sha256": hashlib.sha256(given).hexdigest(),
}}
file, name = tempfile.mkstemp(dir={directory!r})
os.write(file, json.dumps(account).encode())
os.rename(name, name + ".json")
"""


async def _make_house(stage: Stage) -> tuple[House, Path, Path]:
    """A proxy and an sshd whose shell, subsystem and command are the helper; its path, and its accounts'."""
    accounts = stage.path("accounts/none").parent
    helper = stage.file("helper", HELPER.format(python=sys.executable, directory=str(accounts)))
    helper.chmod(0o755)
    house = await build(stage, sshd=[f"Subsystem account {helper} subsystem", "AcceptEnv LC_*"])
    (house.target.directory / "home" / ".bash_profile").write_text(f"exec {helper} shell\n")
    return house, helper, accounts


def _is_answered(live: LiveClient, channel: ClientChannel) -> bool:
    return len(channel.replies) >= channel.wanted or live.over


async def _run(house: House, sequence: Sequence) -> None:
    """All steps, and the end of the session."""
    live = LiveClient(reactor, house.keyless.key.path, user="joe", login=LOGIN)
    try:
        await live.connect(house.proxy.host, house.proxy.port, house.target.port)
        await fact(lambda: live.ready, "no inner login")
        for step in sequence.steps:
            if step[0] == "c.close":
                channel = live.client.channels[CHANNEL]
                answered = partial(_is_answered, live, channel)
                await fact(answered, lambda: f"a reply is missing: {sequence}")
            if step == ("settle",):
                live.client.relax()
                await deferLater(reactor, PAUSE)  # type: ignore[arg-type]
            else:
                client_step(live.client, step)
            if step[0] == "c.open":
                await fact(lambda: live.client.channels[CHANNEL].opened or live.over, "no channel")
        await fact(lambda: live.over, lambda: f"the session does not end: {sequence}")
    finally:
        live.close()


def _problems(
    sequence: Sequence, given: dict[str, Any], manifest: dict[str, Any], end: dict[str, Any], text: str
) -> list[str]:
    """What the record says otherwise than the helper."""
    problems = []
    arguments = [bytes.fromhex(argument) for argument in given["arguments"]]
    kind, command = arguments[0].decode(), b""
    if kind == "subsystem":
        command = b"account"
    elif kind != "shell":
        command = sequence.commands[kind]
        kind = "exec"
        assert [
            argument.encode("latin-1") for argument in shlex.split(command.decode("latin-1"))[1:]
        ] == arguments
    if manifest["kind"] != kind or not same(
        command, manifest.get("command", ""), manifest.get("command_sha256", "")
    ):
        says = f"{manifest['kind']} {manifest.get('command', '')[-60:]!r}"
        problems.append(f"the manifest says {says}, {kind} {command[-60:]!r} ran")
    if end["kind"] != kind:
        problems.append(f"session.end says {end['kind']}, {kind} ran")
    size, digest = manifest["stdin"]["bytes"], manifest["stdin"].get("sha256", "")
    if (size, digest) != (given["stdin"], given["sha256"]):
        problems.append(f"the manifest says {size} bytes of input, {given['stdin']} were read")
    if (end.get("stdin", 0), end.get("stdin_sha256")) != (given["stdin"], given["sha256"]):
        problems.append(f"session.end says {end.get('stdin')} bytes of input, {given['stdin']} were read")
    for name, value in given["environment"].items():
        value = bytes.fromhex(value)
        if bytes.fromhex(name).startswith(b"LC_X") and value:
            held = hashlib.sha256(value).hexdigest() in text or any(form in text for form in forms(value))
            if not held:
                problems.append(f"the record does not hold {bytes.fromhex(name)!r}: {value[:60]!r}")
    return problems


async def _check(stage: Stage, seed: int, count: int) -> None:
    house, helper, accounts = await _make_house(stage)
    for number in range(count):
        sequence = make_sequence(seed, number, str(helper))
        before = house.proxy.sids()
        await _run(house, sequence)
        what = f"sequence {number} of seed {seed}:\n{sequence}"
        (account,) = await fact(lambda: list(accounts.glob("*.json")), f"no account: {what}")
        given = json.loads(account.read_text())
        account.unlink()
        cast = await house.proxy.finished_one(after=before)
        manifest = json.loads(cast.path.with_suffix(".json").read_text())
        (end,) = await house.proxy.audited("session.end", sid=manifest["sid"])
        lines = [
            *cast.path.read_text().splitlines(),
            *map(json.dumps, house.proxy.audit(sid=manifest["sid"])),
        ]
        text = "\n".join(_strings([json.loads(line) for line in lines] + [manifest]))
        problems = _problems(sequence, given, manifest, dict(end), text)
        assert not problems, "\n".join([*problems, what])
    assert not list(accounts.glob("*.json")), "something ran that has no session"


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    return [text for part in value for text in _strings(part)] if isinstance(value, list) else []


async def test_records_what_processes_received(stage: Stage) -> None:
    await _check(stage, SEED, SEQUENCES)


async def test_records_what_processes_received_with_random_seed(stage: Stage) -> None:
    seed = SEED + 1 if os.environ.get("CI") else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    await _check(stage, seed, 4)
