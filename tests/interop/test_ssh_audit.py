"""ssh-audit's opinion of both of our servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.client import AccessMethod
from tests.support.house import build
from tests.support.ports import free_port
from tests.support.process import run
from tests.support.stage import Stage

Found = dict[str, dict[str, list[str]]]


async def audit(port: int) -> Found:
    """What it finds: ``fail`` or ``warn``, with the notes of each algorithm."""
    program = str(Path(sys.executable).with_name("ssh-audit"))
    result = await run(program, "--skip-rate-test", "-j", "-p", str(port), "127.0.0.1", within=180)
    found: Found = {"fail": {}, "warn": {}}
    report = json.loads(result.text)
    seen = 0
    for kind in ("kex", "key", "enc", "mac"):
        for one in report[kind]:
            seen += 1
            for level, algorithms in found.items():
                notes = one["notes"].get(level, [])
                if notes:
                    algorithms[one["algorithm"]] = notes
    assert seen > 10, result.text
    assert report["cves"] == []
    return found


@pytest.mark.parametrize("server", ["outer", "inner"])
async def test_passes_ssh_audit(stage: Stage, server: str) -> None:
    """Nothing fails; nothing is warned of but that curve25519 alone is no match for a quantum computer."""
    house = await build(stage)
    port = house.proxy.port
    if server == "inner":
        # A forward of the outer connection leads to the inner server, whatever the client takes it for.
        port = free_port()
        method = ("-N", "-o", "ExitOnForwardFailure=yes", "-v", "-L", f"{port}:localhost:{house.target.port}")
        forward = house.client(AccessMethod.CERTIFICATE).start(*method, "proxy")
        await forward.says("Entering interactive session")
    found = await audit(port)
    assert found["fail"] == {}
    for algorithm, notes in found["warn"].items():
        assert algorithm.startswith("curve25519-sha256"), found
        assert all("quantum" in note for note in notes), found
    if server == "inner":
        assert house.proxy.audit("upstream.failed") == []
