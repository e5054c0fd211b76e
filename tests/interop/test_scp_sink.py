"""What the stock ``scp -t`` did to its disk, held against the account of what passed: random lines."""

from __future__ import annotations

import hashlib
import os
import select
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conchrec.recording.capture.scp import ScpCommand, ScpReader
from conchrec.recording.format.transfer_account import AccountLost, Operation, TransferFact
from tests.support.process import program

NAMES = st.sampled_from([b"a"] * 4 + [b"b"] * 4 + [b"full", b"dir", b"x\0y", b"a/b", b".."])
MODES = st.sampled_from([b"0644"] * 3 + [b"4755"] * 3 + [b"00644"])
STATUS = st.sampled_from([b"\0", b"\0", b"\0", b"\1no\n", b"\1no\n", b"\2no\n"])


def file(fields: tuple[bytes, bytes, bytes, bytes]) -> list[bytes]:
    """A line and what follows it: the bytes and how it ended."""
    mode, name, data, status = fields
    return [b"C%s %d %s\n" % (mode, len(data), name), data + status]


CONTENTS = st.one_of(st.binary(max_size=6), st.just(b"C4755 1 evil\n"), st.just(b"E\n"))
FILE = st.tuples(MODES, NAMES, CONTENTS, STATUS).map(file)
DIRECTORY = st.tuples(MODES, NAMES).map(lambda fields: [b"D%s 0 %s\n" % fields])
LINE = st.sampled_from([b"E\n", b"T1 0 2 0\n", b"\1warning\n", b"T1 0\n", b"hello\n", b"Eand more\n"]).map(
    lambda line: [line]
)
SENT = st.lists(st.one_of(FILE, FILE, FILE, FILE, FILE, DIRECTORY, LINE), max_size=5)


@dataclass
class Sink:
    """A running ``scp -t`` and the reader that follows it."""

    top: Path
    process: subprocess.Popen[bytes]
    reader: ScpReader
    account: list[TransferFact] = field(default_factory=list)

    def send(self, data: bytes, *, wait: bool) -> None:
        """``wait`` for an answer, if there is one soon: not everything has one."""
        self.account += self.reader.from_user(data)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            return
        assert self.process.stdout is not None
        if wait and select.select([self.process.stdout], [], [], 0.02)[0]:
            self.hear()

    def hear(self) -> bool:
        assert self.process.stdout is not None
        answer = os.read(self.process.stdout.fileno(), 65536)
        self.account += self.reader.from_target(answer)
        return bool(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        while self.hear():
            pass
        self.account += self.reader.end()


@contextmanager
def run_sink(options: str) -> Iterator[Sink]:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "full").mkdir()
        (top / "full" / "x").write_bytes(b"")
        words = [f"-{options}t", "-d", f"{top}/"]
        command = ScpCommand.parse(words)
        assert command is not None
        process = subprocess.Popen(
            [program("scp"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            yield Sink(top=top, process=process, reader=ScpReader(command, lambda: 0.0))
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()


def check(sink: Sink) -> None:
    """Every file on the disk is named; the last digest of a path is that of the file there."""
    operations = {operation.path: operation for operation in sink.account if isinstance(operation, Operation)}
    for path in sorted(sink.top.rglob("*")):
        if path.name == "x" and path.parent.name == "full":
            continue
        if path.is_dir() and path.name == "full":
            continue
        assert str(path) in operations, (path, sink.account)
        operation = operations[str(path)]
        assert operation.result != "no", "the sender's word is no result"
        if path.is_file() and operation.result == "ok":
            assert operation.sha256 == hashlib.sha256(path.read_bytes()).hexdigest(), (path, operation)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & stat.S_ISUID:
            assert any(
                "mode=4755" in operation.detail
                for operation in sink.account
                if isinstance(operation, Operation)
            )


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["", "r", "p", "rp"]), SENT, st.booleans())
def test_accounts_for_files_of_scp_sink(options: str, sent: list[list[bytes]], wait: bool) -> None:
    with run_sink(options) as sink:
        sink.hear()
        for part in sent:
            for data in part:
                sink.send(data, wait=wait)
        sink.end()
        if not any(isinstance(entry, AccountLost) for entry in sink.account):
            check(sink)
