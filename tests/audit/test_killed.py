"""Processes that write to one audit log, are killed, and have it rotated: every line stays in its chain."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conchrec.audit.files import log_files, oldest_first, read_lines
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.verify import AuditVerifier
from conchrec.recording.format.signatures import RecordingSigner
from tests.support.keys import private_text
from tests.support.proxy import our_environment

WRITER = """
import sys
from pathlib import Path
from conchrec.audit.events import Exec
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log import AuditLog
from conchrec.recording.format.signatures import RecordingSigner

directory = Path(sys.argv[1])
signer = RecordingSigner.parse((directory / "key").read_bytes())
log = AuditLog(directory / "audit.jsonl", signer=signer, heads=AuditHeadFile(directory / "audit_heads"))
for number in range(10**9):
    log.emit(Exec(command="x" * (number % 3000)))
    if number % 50 == 0:
        log.tick()
    if number == 100:
        print("writes", flush=True)
"""
ROUNDS = 3
AT_ONCE = 3


def test_keeps_chains_valid_when_writers_are_killed_and_rotated(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    key = Ed25519PrivateKey.generate()
    signer = RecordingSigner(key)
    (tmp_path / "key").write_bytes(private_text(key))
    log = tmp_path / "audit.jsonl"
    for round_ in range(ROUNDS):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=our_environment()
            )
            for _ in range(AT_ONCE)
        ]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"writes\n"
        log.rename(tmp_path / f"audit.jsonl.{ROUNDS - round_}")
        while not log.exists() or not log.stat().st_size:
            time.sleep(0.01)
        for writer in rng.sample(writers, AT_ONCE):
            time.sleep(rng.uniform(0, 0.05))
            writer.kill()
            writer.communicate()
    verifier = AuditVerifier(
        signer.keys(), heads=AuditHeadFile(tmp_path / "audit_heads").heads(), complete=True
    )
    files = oldest_first(log_files(log))
    for path in files:
        verifier.read(path.name, read_lines(path))
    verifier.finish()
    assert verifier.problems == []
    assert (len(files), len(verifier.chains)) == (ROUNDS + 1, ROUNDS * AT_ONCE)
    assert verifier.lines > ROUNDS * AT_ONCE * 100
