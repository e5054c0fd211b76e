"""A second verifier of the audit log, by ``docs/audit.md`` alone: it shares no code with conchrec.

    python independent_audit.py KEY.pub HEADS FILE…

The files oldest first, plain or gzip; HEADS is a copy of ``audit_heads``, or ``-``. One line for each
problem, and exit code 1.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key


def is_signed(key: Ed25519PublicKey, line: bytes) -> bool:
    body = line.rpartition(b',"signature":"')[0]
    try:
        key.verify(base64.b64decode(json.loads(line)["signature"]), b"conchrec audit 1\n" + body)
    except (InvalidSignature, ValueError, KeyError):
        return False
    return True


def verify(key: Ed25519PublicKey, heads: list[bytes], files: list[Path]) -> Iterator[str]:
    digests: dict[str, bytes] = {}
    numbers: dict[str, int] = {}
    closed: set[str] = set()
    for path in files:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        others: list[bytes] = []
        for line in content.splitlines(keepends=True):
            try:
                entry = json.loads(line)
                chain, number = entry["chain"], entry["seq"]
            except (ValueError, KeyError, TypeError):
                others.append(line)
                continue
            is_head = entry["event"] == "audit.head"
            if is_head and not is_signed(key, line):
                yield f"{chain}:{number} is not signed"
            if chain not in numbers and is_head:
                start = hashlib.sha256(b"conchrec audit 1\n" + chain.encode()).digest()
                digests[chain] = start if number == 0 else bytes.fromhex(entry["head"])
                numbers[chain] = number
            if number != numbers.get(chain):
                yield f"{chain}:{number} is not line {numbers.get(chain)}"
                return
            digest = digests[chain]
            if entry["prev"] != digest.hex()[:16] or (is_head and entry["head"] != digest.hex()):
                yield f"{chain}:{number} does not follow the line before"
            if chain in closed:
                yield f"{chain}:{number} follows the closing line"
            if is_head and entry["reason"] == "close":
                closed.add(chain)
            if entry["event"] == "audit.repair":
                torn = others.pop()[:-1]
                if (entry["size"], entry["sha256"]) != (len(torn), hashlib.sha256(torn).hexdigest()):
                    yield f"{chain}:{number} tells of another torn line"
            digests[chain], numbers[chain] = hashlib.sha256(digest + line).digest(), number + 1
        if others and others[-1].endswith(b"\n"):
            yield f"{path}: {len(others)} lines are not part of a chain"
    for line in heads:
        entry = json.loads(line)
        if numbers.get(entry["chain"], 0) <= entry["seq"]:
            yield f"{entry['chain']}:{entry['seq']} is known, and missing"
    if not numbers:
        yield "there is no chain"


if __name__ == "__main__":
    public = load_ssh_public_key(Path(sys.argv[1]).read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    known = [] if sys.argv[2] == "-" else Path(sys.argv[2]).read_bytes().splitlines(keepends=True)
    problems = list(verify(public, known, [Path(name) for name in sys.argv[3:]]))
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)
