"""Recordings as a reader without our code sees them: lines of JSON, and the real asciinema."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from tests.support.process import Process


class Header(TypedDict, total=False):
    """The first line of an asciicast file."""

    version: int
    width: int
    height: int
    timestamp: int
    command: str
    title: str
    env: dict[str, str]
    conchrec: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """One recording, and the manifest beside it (None while it is being written)."""

    path: Path
    header: Header
    events: tuple[tuple[float, str, str], ...]
    manifest: dict[str, object] | None

    @property
    def sid(self) -> str:
        """Return the session identifier."""
        return self.path.stem

    def text(self, code: str = "o") -> str:
        """All data of the events with this code."""
        return "".join(data for _, what, data in self.events if what == code)

    def listed(self, code: str) -> list[str]:
        """Return the data of all events with this code."""
        return [data for _, what, data in self.events if what == code]


def read_cast(path: Path) -> Cast:
    """Read it strictly; a last line without its newline (it is being written) is left out."""
    raw = path.read_bytes()
    lines = raw[: raw.rfind(b"\n") + 1].split(b"\n")[:-1]
    header = cast(Header, json.loads(lines[0])) if lines else Header()
    events = []
    last = 0.0
    for line in lines[1:]:
        when, code, data = json.loads(line)
        assert isinstance(when, (int, float)) and when >= last, f"{path}: time goes back at {line!r}"
        assert isinstance(data, str), f"{path}: {line!r}"
        last = when
        events.append((float(when), str(code), data))
    manifest_path = path.with_suffix(".json")
    manifest = (
        cast("dict[str, object]", json.loads(manifest_path.read_bytes())) if manifest_path.exists() else None
    )
    return Cast(path=path, header=header, events=tuple(events), manifest=manifest)


def players() -> list[str]:
    """Every asciinema 2 that there is: of PyPI (2.4) and of the system (2.2 on Debian 12). Their `cat` writes
    what was recorded to the terminal; that of version 3 joins recordings."""
    own = os.path.join(os.path.dirname(sys.executable), "asciinema")
    programs = sorted(
        {os.path.realpath(path) for path in (own, "/usr/bin/asciinema") if os.path.exists(path)}
    )
    usable = [path for path in programs if _version(path).startswith("asciinema 2.")]
    assert usable, "no asciinema 2 on this machine: run tests/prepare"
    return usable


@functools.cache
def _version(player: str) -> str:
    return subprocess.run([player, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout


async def shown(path: Path, *, command: str = "cat", player: str | None = None) -> bytes:
    """What a raw terminal gets from ``asciinema cat`` (or ``play``)."""
    process = Process([player or players()[0], command, path], terminal=(80, 24), raw=True)
    try:
        result = await process.wait()
    finally:
        await process.stop()
    assert result.code == 0, str(result)
    return result.stdout


async def plays_as(path: Path, expected: bytes, *commands: str) -> None:
    """Every asciinema shows these very bytes with each command, by default ``cat``; AssertionError otherwise.
    ``play`` takes as long as the session did."""
    for player in players():
        for command in commands or ("cat",):
            got = await shown(path, command=command, player=player)
            assert got == expected, f"{player} {command} {path}: {got[-500:]!r} and not {expected[-500:]!r}"
