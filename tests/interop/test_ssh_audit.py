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

Report = dict[str, dict[str, list[str]]]


async def audit(port: int) -> Report:
    """What it finds: ``fail`` or ``warn``, with the notes of each algorithm."""
    program = str(Path(sys.executable).with_name("ssh-audit"))
    result = await run(program, "--skip-rate-test", "-j", "-p", str(port), "127.0.0.1", within=180)
    findings: Report = {"fail": {}, "warn": {}}
    report = json.loads(result.text)
    seen = 0
    for kind in ("kex", "key", "enc", "mac"):
        for note in report[kind]:
            seen += 1
            for level, algorithms in findings.items():
                notes = note["notes"].get(level, [])
                if notes:
                    algorithms[note["algorithm"]] = notes
    assert seen > 10, result.text
    assert report["cves"] == []
    return findings


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
    findings = await audit(port)
    assert findings["fail"] == {}
    for algorithm, notes in findings["warn"].items():
        assert algorithm.startswith("curve25519-sha256"), findings
        assert all("quantum" in note for note in notes), findings
    if server == "inner":
        assert house.proxy.audit("upstream.failed") == []
