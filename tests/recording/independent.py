"""A second verifier, written from ``docs/recordings.md`` alone: it shares no code with conchrec.

    python independent.py DIRECTORY KEY.pub [HEAD]

Verifies plain and compressed recordings. It prints a line for each problem, and then exits with 1.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key


def signed(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def ledger(path: Path, key: Ed25519PublicKey, head: str, known: dict[str, dict[str, str]]) -> Iterator[str]:
    """Fill ``known`` (session id, act, digest of the manifest) and yield problems."""
    number, previous, seen = 0, "0" * 64, not head
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        entry = json.loads(line)
        body = line.rpartition(b',"signature":"')[0]
        if not signed(key, entry["signature"], b"conchrec ledger 1\n" + body):
            yield f"ledger: line {number + 1} is not signed"
        if (entry["number"], entry["previous"]) != (number + 1, previous):
            yield f"ledger: line {number + 1} does not follow the one before"
        if entry["act"] == "broken":
            yield f"ledger: line {number + 1} says that it did not continue {entry['head']}"
        number, previous = number + 1, hashlib.sha256(line).hexdigest()
        seen = seen or head == f"{number}:{previous}"
        acts = known.setdefault(entry["sid"], {}) if entry["act"] != "broken" else {}
        if entry["act"] == "sealed" and acts.get("sealed", entry["manifest"]) != entry["manifest"]:
            yield f"{entry['sid']}: it was sealed twice, with different manifests"
        acts[entry["act"]] = entry.get("manifest", "")
    if not seen:
        yield "ledger: a head is missing"


def recording(path: Path, key: Ed25519PublicKey) -> Iterator[str]:
    sid = path.name.split(".")[0]
    text = path.with_name(sid + ".json").read_bytes()
    manifest = json.loads(text)
    body = text.rpartition(b',\n "signed": ')[0]
    if "signed" not in manifest or not signed(
        key, manifest["signed"]["signature"], b"conchrec manifest 1\n" + body
    ):
        yield f"{sid}: its manifest is not signed"
        return
    if manifest["sid"] != sid or manifest["status"] == "damaged":
        yield f"{sid}: its manifest is of another one, or says that it is damaged"
    content = path.read_bytes()
    if (
        "stored" in manifest and hashlib.sha256(content).hexdigest() != manifest["stored"]["sha256"]
    ) or manifest.get("stored", {}).get("name", f"{sid}.cast") != path.name:
        yield f"{sid}: the file is another one"
    if path.suffix == ".zst":
        content = (
            zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
        )
    digest = hashlib.sha256()
    for line in content.splitlines(keepends=True):
        event = json.loads(line)
        if isinstance(event, list) and event[1] == "c":
            version, size, sha256, signature = event[2].split(" ")
            message = f"conchrec checkpoint {version}\n{sid} {size} {sha256}".encode()
            if sha256 != digest.hexdigest() or not signed(key, signature, message):
                yield f"{sid}: the checkpoint at byte {size} is not good"
        digest.update(line)
    if digest.hexdigest() != manifest["cast"]["sha256"] or len(content) != manifest["cast"]["size"]:
        yield f"{sid}: the cast is another one"


def directory(root: Path, key: Ed25519PublicKey, head: str) -> Iterator[str]:
    known: dict[str, dict[str, str]] = {}
    yield from ledger(root / "ledger.jsonl", key, head, known)
    there = {path.name.split(".")[0]: path for path in root.glob("*/*/*/*.cast*")}
    for sid, acts in known.items():
        if sid not in there and "removed" not in acts:
            yield f"{sid}: it is gone"
    for sid, path in there.items():
        if not path.with_name(sid + ".json").exists():
            yield f"{sid}: it is not complete"
            continue
        yield from recording(path, key)
        manifest = hashlib.sha256(path.with_name(sid + ".json").read_bytes()).hexdigest()
        if known.get(sid, {}).get("sealed") != manifest:
            yield f"{sid}: the ledger knows another manifest"


if __name__ == "__main__":
    public = load_ssh_public_key(Path(sys.argv[2]).read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    problems = list(directory(Path(sys.argv[1]), public, sys.argv[3] if len(sys.argv) > 3 else ""))
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)
