"""What the commands about recordings and the audit log say, of good ones and of tampered ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.conftest import Compare
from tests.golden.entries import Entries
from tests.golden.files import sftp
from tests.golden.scene import Scene

#: What has times in it is not always of the same size.
_PLACEHOLDERS = (
    (re.compile(r"\b\d+\.\d+(?= ?s\b)|(?<=duration    )\d\S*"), "<seconds>"),
    (re.compile(r'(?<=byte )\d+|\b\d+(?= bytes)|(?<=instead of )\d+|(?<="size": )\d+'), "<size>"),
    (re.compile(r" {3,}\d+(?= all recordings)"), " <size>"),
    (re.compile(r"(?<=made_by     )conchrec \S+"), "<version>"),
    (re.compile(r"(?<=/\.out\.cast\.)\w+"), "<random>"),
)


class RecordingCopies:
    """A directory with recordings of three sessions, the oldest first, and the commands about them."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.entries = Entries(scene.directory)
        self.sids = scene.sids()

    def run(self, *argv: str) -> str:
        return self.entries.run(*argv)

    def cast(self, number: int) -> Path:
        (path,) = self.scene.recordings.rglob(f"{self.sids[number]}.cast")
        return path

    def changed(self, label: str, path: Path, data: bytes | None) -> None:
        """Verify all while the file has other contents, or (None) is not there."""
        kept = path.read_bytes()
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        self.entries.run("recordings", "verify", label=f"conchrec recordings verify: {label}")
        path.write_bytes(kept)

    def text(self) -> str:
        text = self.entries.text()
        for pattern, placeholder in _PLACEHOLDERS:
            text = pattern.sub(placeholder, text)
        return text


@pytest.fixture
def copies() -> Iterator[RecordingCopies]:
    scene = sftp(Codes())
    for command, status in ((b"uptime", 0), (b"false", 1)):
        number = len(scene.user.channels)
        scene.session(number)
        scene.ask(b"exec", w.text(command), channel=number)
        scene.out(b"up 3 days, drop table\r\n", channel=number)
        scene.exit(status, channel=number)
    scene.disconnect()
    scene.settle(2)
    scene.proxy.stopService()
    scene.settle(5)
    yield RecordingCopies(scene)
    scene.close()


def test_keeps_messages_of_playback(golden: Compare, copies: RecordingCopies) -> None:
    run, sid = copies.run, copies.sids[1]
    run("recordings", "ls")
    run("recordings", "rebuild-index")
    run("recordings", "ls")
    run("recordings", "ls", "--user", "nobody")
    run("recordings", "ls", "--since", "yesterday")
    run("recordings", "show", sid)
    run("recordings", "show", "nonsense")
    run("recordings", "search", "drop table")
    run("recordings", "search", "nowhere to be seen")
    run("recordings", "search", "...")
    run("recordings", "text", sid)
    run("recordings", "text", "nonsense")
    run("recordings", "play", sid)
    run("recordings", "play", sid, "--speed", "0")
    run("recordings", "text", sid, "--raw")
    run("recordings", "search", "drop table", "--limit", "1")
    run("recordings", "ls", "--limit", "1")
    run("recordings", "ls", "--limit", "0")
    run("recordings", "follow", sid)
    run("recordings", "export", sid, "--format", "text")
    run("recordings", "export", sid, "-o", "out.cast")
    run("recordings", "export", sid, "-o", "out.cast")
    run("recordings", "export", sid, "-o", "missing/out.cast")
    run("recordings", "play", sid, "--identity", "missing")
    run("recordings", "play", sid, "--identity", "config.yaml")
    run("recordings", "prune")
    run("recordings", "prune", "--age", "1d", "--dry-run")
    run("recordings", "hold", sid)
    run("recordings", "hold", sid, "--reason", "lawsuit")
    run("recordings", "hold", sid, "--reason", "lawsuit")
    run("recordings", "hold", "nonsense", "--reason", "lawsuit")
    run("recordings", "prune", "--size", "1B", "--dry-run")
    run("recordings", "release", sid)
    run("recordings", "release", sid)
    cast = copies.cast(1)
    kept = cast.read_bytes()
    cast.write_bytes(b"nonsense\n")
    for name in ("text", "play", "export"):
        run("recordings", name, sid)
    cast.write_bytes(kept)
    golden("messages/recordings.txt", copies.text())


def test_keeps_messages_of_verification(golden: Compare, copies: RecordingCopies) -> None:
    run, sid = copies.run, copies.sids[1]
    run("recordings", "verify")
    run("recordings", "verify", sid)
    run("recordings", "verify", "nonsense")
    run("recordings", "verify", "missing.cast")
    run("recordings", "verify", "--key", "missing.pub", str(copies.cast(0)))
    run("recordings", "verify", "--key", "config.yaml", str(copies.cast(0)))
    run("recordings", "verify", "--key", str(copies.scene.directory / "state" / "recording_key.pub"))
    run("recordings", "verify", "--head", "nonsense")
    run("recordings", "verify", "--head", "1:" + "0" * 64)
    cast = copies.cast(1)
    manifest, data = cast.with_suffix(".json"), cast.read_bytes()
    ledger = copies.scene.recordings / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    fields = json.loads(manifest.read_bytes())
    copies.changed("one letter of a cast is another one", cast, data.replace(b"up 3 days", b"up 4 days"))
    copies.changed("a cast is cut", cast, data[:-20])
    copies.changed("a cast is longer", cast, data + b'[9, "o", "x"]\n')
    copies.changed("a cast is gone", cast, None)
    copies.changed("a manifest is gone", manifest, None)
    copies.changed("a manifest says another user", manifest, json.dumps(fields | {"user": "eve"}).encode())
    copies.changed("a manifest is of another recording", manifest,
                  copies.cast(2).with_suffix(".json").read_bytes())  # fmt: skip
    copies.changed("a manifest is not JSON", manifest, b"nonsense")
    unsigned = {name: value for name, value in fields.items() if name != "signed"}
    copies.changed("a manifest is not signed", manifest, json.dumps(unsigned).encode())
    copies.changed("a line of the ledger is gone", ledger, b"".join(lines[:3] + lines[4:]))
    copies.changed("the ledger is cut", ledger, b"".join(lines[:-1]))
    copies.changed("the ledger has a line that is not JSON", ledger, b"".join(lines) + b"nonsense\n")
    copies.changed("the ledger is empty", ledger, b"")
    copies.changed("the ledger is gone", ledger, None)
    copy = cast.with_name("0" + "1" * 25 + ".cast")
    copy.write_bytes(data)
    run("recordings", "verify")
    copy.unlink()
    golden("messages/verify.txt", copies.text())


def test_keeps_messages_of_audit(golden: Compare, copies: RecordingCopies) -> None:
    entries = copies.entries
    log = copies.scene.audit
    run = copies.run
    run("audit", "verify")
    lines = log.read_bytes().splitlines(keepends=True)

    def changed(label: str, data: bytes) -> None:
        log.write_bytes(data)
        entries.run("audit", "verify", label=f"conchrec audit verify: {label}")
        log.write_bytes(b"".join(lines))

    changed("a line was changed", b"".join(lines).replace(b'"user":"joe"', b'"user":"eve"', 1))
    changed("a line was removed", b"".join(lines[:3] + lines[4:]))
    changed("a line was added", b"".join(lines) + lines[3])
    changed("lines were exchanged", b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]))
    changed("the end was cut", b"".join(lines[:-3]))
    changed("the beginning was cut", b"".join(lines[3:]))
    changed("a line that is not JSON", b"".join(lines) + b"nonsense\n")
    changed("a torn line", b"".join(lines)[:-10])
    changed("it is empty", b"")
    run("audit", "verify", "--key", "missing.pub", "audit.jsonl")
    run("audit", "verify", "missing.jsonl")
    run("audit", "verify", "--head", "nonsense")
    run("audit", "verify", "--head", "0" * 12 + ":1:" + "0" * 64)
    run("audit", "verify", "--complete")
    golden("messages/audit.txt", re.sub(r"\b[0-9a-f]{12}\b", "<chain>", copies.text()))


def test_keeps_messages_without_recordings(golden: Compare, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "users: {}\nroles: {}\nstate_dir: state\nrecordings: {directory: recordings}\naudit: {file: audit}\n"
    )
    entries = Entries(tmp_path)
    entries.run("recordings", "verify")
    entries.run("audit", "verify")
    os.mkdir(tmp_path / "state", 0o700)
    for argv in (
        ("recordings", "ls"),
        ("recordings", "ls", "--json"),
        ("recordings", "search", "x"),
        ("recordings", "rebuild-index"),
        ("recordings", "verify"),
        ("recordings", "prune", "--age", "1d"),
        ("recordings", "hold", "x", "--reason", "y"),
        ("audit", "verify"),
    ):
        entries.run(*argv)
    golden("messages/nothing_there.txt", entries.text())
