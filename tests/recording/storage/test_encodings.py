"""Compressed and encrypted recordings: their files, who can read them, and what a crash leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.errors import RecordingError
from conchrec.recording.catalogue import library
from conchrec.recording.format.manifest import Status
from conchrec.recording.storage.encodings import Encrypted, ZstdFrames, open_recording
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.storage.recipients import parse_identities, parse_recipient
from conchrec.recording.storage.spool import Spool
from tests.recording.failing_file import FailingFile
from tests.recording.recording_bench import Bench, events, result


def texts(path: Path, keys: object = ()) -> str:
    assert isinstance(keys, tuple)
    return "".join(event.text for event in library.events(path, keys) if event.code == "o")


def record(bench: Bench, *to: str, compress: bool = False) -> Path:
    recorder = bench.store(compress=compress, recipients=to).open(bench.info())
    recorder.start("shell")
    for number in range(300):
        recorder.output(b"line %d\r\n" % number)
        bench.clock.advance(0.01)
    return bench.close(recorder).path


TEXT = "".join(f"line {number}\r\n" for number in range(300))


def test_compresses_for_zstd(bench: Bench) -> None:
    packed, plain = record(bench, compress=True), record(bench)
    assert packed.name.endswith(".cast.zst") and packed.stat().st_mode & 0o777 == 0o600
    assert packed.stat().st_size < plain.stat().st_size * 0.7
    assert texts(packed) == texts(plain) == TEXT
    by_others = subprocess.run(["zstd", "-dc", str(packed)], capture_output=True, check=True).stdout
    with open_recording(packed) as file:
        assert file.read() == by_others
    assert bench.verify(packed.name[:26]).ok


def test_reads_compressed_recording_while_it_is_written(bench: Bench) -> None:
    recorder = bench.store(compress=True).open(bench.info())
    recorder.start("shell")
    recorder.output(b"one")
    recorder.flush()
    assert texts(recorder.path) == "one"
    bench.clock.advance(2)
    recorder.output(b"two")
    recorder.flush()
    assert texts(recorder.path) == "onetwo"


def test_holds_no_compressor_memory_while_idle() -> None:
    packer = ZstdFrames()
    packer.compress((b"line\n",))
    assert packer.is_open
    assert packer.cut() and not packer.is_open
    assert packer.cut() == b""


@settings(deadline=None)
@given(where=st.integers(0, 4000))
def test_recovers_compressed_recording_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, where: int
) -> None:
    """All complete lines that can be read are there after the recovery, and it verifies."""
    bench = Bench(directory=tmp_path_factory.mktemp("packed"))
    recorder = bench.store(compress=True).open(bench.info())
    recorder.start("shell")
    for number in range(20):
        recorder.output(b"line %d\r\n" % number)
        bench.clock.advance(0.2)
    recorder.spool.close()
    contents = recorder.path.read_bytes()
    recorder.path.write_bytes(contents[:where])
    with open_recording(recorder.path) as file:
        readable = file.read()
    (recovered,) = bench.recover()
    assert recovered.manifest is not None and recovered.manifest.status is Status.INTERRUPTED
    kept = readable[: readable.rfind(b"\n") + 1]
    with open_recording(recorder.path) as file:
        assert file.read().startswith(kept)
    if where >= len(contents):
        assert texts(recorder.path).count("line") == 20
    assert bench.verify(recovered.sid).ok


@pytest.mark.parametrize("compress", [False, True])
def test_encrypts_to_auditors(bench: Bench, tmp_path: Path, compress: bool) -> None:
    age = pyrage.x25519.Identity.generate()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    ssh = (tmp_path / "k.pub").read_text().strip()
    path = record(bench, str(age.to_public()), ssh, compress=compress)
    assert path.name.endswith(".cast.zst.age" if compress else ".cast.age")
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(
        [path.name, f"{path.name[:26]}.json"]
    )
    assert b"line 7" not in path.read_bytes()
    with pytest.raises(Encrypted, match="--identity"):
        texts(path)
    assert texts(path, parse_identities((tmp_path / "k").read_bytes())) == TEXT
    assert texts(path, parse_identities(f"# mine\n{age}\n".encode())) == TEXT
    with pytest.raises(Encrypted, match="cannot decrypt"):
        texts(path, (pyrage.x25519.Identity.generate(),))
    verdict = bench.verify(path.name[:26])
    assert verdict.ok and "use --identity FILE to check its contents" in verdict.notes[0]
    entry = library.Library(bench.directory).find(path.name[:26])
    assert entry is not None and entry.manifest is not None
    assert entry.manifest.encrypted == (str(age.to_public()), ssh)


def test_leaves_commands_out_of_the_manifest_of_an_encrypted_recording(bench: Bench) -> None:
    key = pyrage.x25519.Identity.generate()
    recorder = bench.store(recipients=(str(key.to_public()),)).open(bench.info())
    recorder.pty("xterm", 80, 24)
    recorder.start("shell")
    recorder.output(b"$ ")
    recorder.input(b"secret plan\r")
    recorder.output(b"secret plan\r\n")
    closed = bench.close(recorder)
    assert closed.manifest.commands == () and closed.manifest.commands_left_out == 1
    assert b"secret" not in closed.path.with_name(f"{closed.manifest.sid}.json").read_bytes()
    assert ("m", "secret plan") in [(event.code, event.text) for event in library.events(closed.path, (key,))]


def test_encrypts_for_age_itself(bench: Bench, tmp_path: Path) -> None:
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{key}\n")
    path = record(bench, str(key.to_public()))
    done = subprocess.run(
        ["age", "-d", "-i", str(tmp_path / "key"), str(path)], capture_output=True, check=True
    )
    (tmp_path / "plain.cast").write_bytes(done.stdout)
    assert "".join(text for code, text in events(tmp_path / "plain.cast") if code == "o") == TEXT


@pytest.mark.parametrize("where", [0, 100, -1])
def test_finds_change_of_an_encrypted_recording(bench: Bench, where: int) -> None:
    key = pyrage.x25519.Identity.generate()
    path = record(bench, str(key.to_public()))
    contents = bytearray(path.read_bytes())
    contents[where] ^= 1
    path.write_bytes(contents)
    assert bench.verify(path.name[:26]).problems == ("the file was changed after it was signed",)
    with pytest.raises(Encrypted):
        texts(path, (key,))


def test_completes_encrypted_recording_after_a_stop_before_its_plain_one_was_removed(bench: Bench) -> None:
    """The manifest exists, its line in the ledger does not; both files exist."""
    key = pyrage.x25519.Identity.generate()
    path = record(bench, str(key.to_public()))
    sid = path.name[:26]
    (path.parent / f"{sid}.cast").write_text("plain")
    book = bench.directory / "ledger.jsonl"
    book.write_bytes(book.read_bytes().splitlines(keepends=True)[0])
    (recovered,) = bench.recover()
    assert recovered.manifest is not None and recovered.manifest.encrypted
    assert RecordingTree(bench.directory).path(sid) == path and not (path.parent / f"{sid}.cast").exists()
    assert bench.verify(sid).ok


def test_encrypts_interrupted_recording_at_its_recovery(bench: Bench) -> None:
    key = pyrage.x25519.Identity.generate()
    store = bench.store(recipients=(str(key.to_public()),))
    recorder = store.open(bench.info())
    recorder.start("shell")
    recorder.output(b"before the crash")
    recorder.flush()
    recorder.spool.close()
    (recovered,) = result(bench.store(recipients=(str(key.to_public()),)).recover())
    assert recovered.manifest is not None and recovered.manifest.encrypted
    path = RecordingTree(bench.directory).path(recovered.sid)
    assert path.name.endswith(".age") and texts(path, (key,)) == "before the crash"


def test_keeps_compressed_lines_readable_when_disk_is_full() -> None:
    file = FailingFile(room=200)
    spool = Spool(file, packer=ZstdFrames())
    spool.append(b"one\n")
    spool.append(b"two\n")
    size = spool.size
    with pytest.raises(RecordingError):
        spool.append(*(b"%d\n" % number for number in range(9999)))
    assert spool.size == size == 8 and spool.stored == len(file.contents)


@pytest.mark.parametrize("text", ["age1qqq", "ssh-ed25519 AAAA", "ssh-dss AAAA", ""])
def test_rejects_invalid_recipient(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_recipient(text)


@pytest.mark.parametrize(
    "text", [b"", b"AGE-SECRET-KEY-1QQ", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA", b"\xff"]
)
def test_rejects_invalid_identity(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_identities(text)
