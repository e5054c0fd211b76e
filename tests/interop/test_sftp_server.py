"""What the stock sftp-server did to its disk, held against the account of what passed: random requests.

The server runs as a program, without SSH. Each request is sent, answered and followed by the reader; between
two of them the disk is read again. Whatever changed has to be named in the account, with the mode that it
got; a digest has to be that of the file on the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.sftp import SftpReader
from conchrec.recording.format.transfer_account import AccountLost, Operation, TransferFact
from conchrec.ssh.wire import string, uint32, uint64

SERVER = Path("/usr/lib/openssh/sftp-server")
NAMES = ("a", "b", "d", "d/e")
MODES = (0o600, 0o644, 0o755, 0o4755, 0o2711, 0o1777)
HANDLES = tuple(uint32(number) for number in range(2))
MODE_TEXT = re.compile("mode=([0-7]+)")
DEFAULT_MODES = (0o666, 0o777)


@dataclass(frozen=True)
class State:
    """A file on the disk; ``content`` of a link is what it points to, of a directory nothing."""

    inode: int
    kind: int
    mode: int
    content: bytes


@dataclass(frozen=True)
class Ask:
    """One request; ``handle`` is the one that it goes through, ``guess`` sends it before OPEN is answered."""

    kind: int
    body: bytes
    handle: bytes = b""
    guess: Ask | None = None


Snapshot = dict[str, State]


@dataclass
class Server:
    """A running sftp-server in a directory, and the reader that follows it."""

    top: Path
    process: subprocess.Popen[bytes]
    reader: SftpReader = field(default_factory=lambda: SftpReader(lambda: 0.0))
    account: list[TransferFact] = field(default_factory=list)
    #: What each name led to, at any time: inodes, and paths behind links.
    inodes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    changes: list[tuple[str, State | None, State | None]] = field(default_factory=list)
    number: int = 0

    def send(self, kind: int, body: bytes) -> None:
        packet = string(bytes((kind,)) + body)
        self.account += self.reader.from_user(packet)
        assert self.process.stdin is not None
        self.process.stdin.write(packet)
        self.process.stdin.flush()

    def answer(self) -> tuple[int, bytes]:
        assert self.process.stdout is not None
        head = self.process.stdout.read(4)
        body = self.process.stdout.read(int.from_bytes(head, "big"))
        self.account += self.reader.from_target(head + body)
        return body[0], body[1:]

    def ask(self, request: Ask) -> tuple[int, bytes]:
        """Send it, with what is sent along, and read the answers; the first of them."""
        waiting = 0
        for request_or_guess in (request, request.guess):
            if request_or_guess is not None:
                self.number += 1
                waiting += 1
                self.send(request_or_guess.kind, uint32(self.number) + request_or_guess.body)
        first, *_ = [self.answer() for _ in range(waiting)]
        return first

    def look(self) -> Snapshot:
        states = {}
        for name in NAMES:
            path = self.top / name
            try:
                status = path.lstat()
            except OSError:
                continue
            self.inodes[name].add(status.st_ino)
            try:
                self.inodes[name].add(path.stat().st_ino)  # through links
            except OSError:
                pass
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.fsencode(os.readlink(path))
            kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
            states[name] = State(inode=status.st_ino, kind=kind, mode=mode, content=content)
        return states

    def name(self, path: str) -> str:
        return os.path.relpath(path, self.top) if path else ""


@contextmanager
def run_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "a").write_bytes(b"what was in it")
        (top / "b").write_bytes(b"")
        (top / "d").mkdir()
        process = subprocess.Popen(
            [SERVER, "-u", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            server = Server(top=top, process=process)
            server.send(wire.INIT, uint32(3))
            server.answer()
            yield server
        finally:
            process.kill()
            process.communicate()


TOP = "%TOP%"
PATH = st.sampled_from(NAMES).map(lambda name: string(f"{TOP}/{name}".encode()))
NUMBER = st.integers(0, 9).map(uint64)
MODE = st.sampled_from(MODES).map(lambda mode: uint32(4) + uint32(mode))
SIZE = st.integers(0, 9).map(lambda size: uint32(1) + uint64(size))
OWNER = st.just(uint32(2) + uint32(os.getuid()) + uint32(os.getgid()))
ATTRIBUTES = st.one_of(st.just(uint32(0)), MODE, SIZE, OWNER)
READ, WRITE, CREATE, TRUNCATE, NEW = 1, 2, 8, 16, 32 | 8
FLAGS = st.one_of(
    st.sampled_from(
        (READ, READ | TRUNCATE, READ | NEW, WRITE, READ | WRITE, WRITE | CREATE, WRITE | CREATE | TRUNCATE)
    ),
    st.integers(0, 63),
).map(uint32)


def ask(kind: int, *parts: st.SearchStrategy[bytes], extension: bytes = b"") -> st.SearchStrategy[Ask]:
    """A request that names its files."""
    first = [st.just(string(extension))] if extension else []
    return st.tuples(*first, *parts).map(lambda fields: Ask(kind, b"".join(fields)))


def through(handle: st.SearchStrategy[bytes]) -> st.SearchStrategy[Ask]:
    """A request through a handle, but for CLOSE."""

    def make(kind: int, *parts: st.SearchStrategy[bytes], extension: bytes = b"") -> st.SearchStrategy[Ask]:
        before = string(extension) if extension else b""
        return st.tuples(handle, *parts).map(
            lambda fields: Ask(kind, before + string(fields[0]) + b"".join(fields[1:]), fields[0])
        )

    copy = st.tuples(st.sampled_from(HANDLES), NUMBER, NUMBER, handle, NUMBER).map(
        lambda f: Ask(
            wire.EXTENDED, string(b"copy-data") + string(f[0]) + f[1] + f[2] + string(f[3]) + f[4], f[3]
        )
    )
    write = make(wire.WRITE, NUMBER, st.binary(min_size=1, max_size=5).map(string))
    return st.one_of(
        write,
        write,
        make(wire.FSETSTAT, ATTRIBUTES),
        copy,
        make(wire.READ, NUMBER, st.just(uint32(9))),
        make(wire.EXTENDED, extension=b"fsync@openssh.com"),
    )


OPEN = ask(wire.OPEN, PATH, FLAGS, ATTRIBUTES)
BY_NAME = st.one_of(
    ask(wire.SETSTAT, PATH, ATTRIBUTES),
    ask(wire.MKDIR, PATH, ATTRIBUTES),
    ask(wire.RMDIR, PATH),
    ask(wire.REMOVE, PATH),
    ask(wire.RENAME, PATH, PATH),
    ask(wire.SYMLINK, PATH, PATH),
    ask(wire.EXTENDED, PATH, PATH, extension=b"posix-rename@openssh.com"),
    ask(wire.EXTENDED, PATH, PATH, extension=b"hardlink@openssh.com"),
    ask(wire.EXTENDED, PATH, MODE, extension=b"lsetstat@openssh.com"),
    ask(wire.STAT, PATH),
    ask(wire.READLINK, PATH),
)
#: A file that is opened and closed, with the lowest handle that is free if this comes first.
OPEN_AND_CLOSE = st.tuples(OPEN, st.lists(through(st.just(HANDLES[0])), max_size=4)).map(
    lambda requests: [requests[0], *requests[1], Ask(wire.CLOSE, string(HANDLES[0]), HANDLES[0])]
)
CLOSE = st.sampled_from(HANDLES).map(lambda handle: Ask(wire.CLOSE, string(handle), handle))
ANY_HANDLE = through(st.sampled_from(HANDLES))
GUESSED = st.tuples(OPEN, st.one_of(ANY_HANDLE, CLOSE)).map(
    lambda pair: Ask(pair[0].kind, pair[0].body, guess=pair[1])
)
SINGLE_REQUEST = st.one_of(BY_NAME, BY_NAME, OPEN, ANY_HANDLE, CLOSE).map(lambda request: [request])


def flat(parts: list[list[Ask]]) -> list[Ask]:
    return [request for part in parts for request in part]


REQUESTS = st.lists(st.one_of(OPEN_AND_CLOSE, OPEN_AND_CLOSE, SINGLE_REQUEST), max_size=6).map(flat)


def placed(request: Ask, top: Path) -> Ask:
    """With the paths of this run: the length of each is in front of it."""

    def body(data: bytes) -> bytes:
        old, new = b"%TOP%/", f"{top}/".encode()
        while (at := data.find(old)) >= 0:
            length = int.from_bytes(data[at - 4 : at], "big") + len(new) - len(old)
            data = data[: at - 4] + uint32(length) + new + data[at + len(old) :]
        return data

    guess = request.guess
    return Ask(
        request.kind,
        body(request.body),
        request.handle,
        None if guess is None else Ask(guess.kind, body(guess.body), guess.handle),
    )


@dataclass
class Opened:
    """A file that is open as far as the test knows. ``disturbed``: somebody else changed it meanwhile."""

    inode: int
    disturbed: bool = False


def run_requests(server: Server, requests: list[Ask]) -> None:
    """Ask them one by one, with a look at the disk after each."""
    opened: dict[bytes, Opened] = {}
    before = server.look()
    for request in (placed(template, server.top) for template in requests):
        position = len(server.account)
        kind, body = server.ask(request)
        after = server.look()
        for name in NAMES:
            if before.get(name) != after.get(name):
                server.changes.append((name, before.get(name), after.get(name)))
        contents = {state.inode: state.content for state in before.values()}
        changed = {s.inode for s in after.values() if contents.get(s.inode, s.content) != s.content}
        for handle, file in opened.items():
            file.disturbed |= file.inode in changed and handle != request.handle
        if request.kind == wire.CLOSE and request.handle in opened:
            check_digest(server.account[position:], opened.pop(request.handle), after)
        if kind == wire.HANDLE_REPLY:
            inode = inode_of(server, request)
            opened[body[8:]] = Opened(inode, disturbed=request.guess is not None)
        before = after
    server.account += server.reader.end()


def inode_of(server: Server, request: Ask) -> int:
    length = int.from_bytes(request.body[:4], "big")
    return os.stat(request.body[4 : 4 + length]).st_ino


def check_digest(facts: list[TransferFact], file: Opened, disk: Snapshot) -> None:
    contents = [state.content for state in disk.values() if state.inode == file.inode]
    for fact in facts:
        if isinstance(fact, Operation) and fact.operation == "write" and fact.sha256 and fact.result == "ok":
            for content in () if file.disturbed else contents:
                assert fact.sha256 == hashlib.sha256(content).hexdigest()


def check_names(server: Server) -> None:
    """Everything that changed is named, with its new mode."""
    operations = [operation for operation in server.account if isinstance(operation, Operation)]
    for name, before, after in server.changes:
        inodes = {state.inode for state in (before, after) if state is not None}
        about = [
            operation
            for operation in operations
            for named in (server.name(operation.path), server.name(operation.other))
            if operation.operation != "read" and (named == name or inodes & server.inodes[named])
        ]
        assert about, (name, before, after, server.account)
        if after is not None and stat.S_ISREG(after.kind) | stat.S_ISDIR(after.kind):
            mode_is_new = before is None or (before.inode, before.mode) != (after.inode, after.mode)
            # A directory inherits the set-group-ID bit of the one that it is created in.
            inherited = stat.S_ISGID if before is None and stat.S_ISDIR(after.kind) else 0
            mode = after.mode & ~inherited
            renamed = any(
                operation.operation in ("rename", "posix-rename", "hardlink") for operation in about
            )
            if mode_is_new and mode not in DEFAULT_MODES and not renamed:
                modes = {int(text, 8) for operation in about for text in MODE_TEXT.findall(operation.detail)}
                # mkdir drops what is no permission; the account has what was asked for.
                assert mode in modes | {operations & 0o1777 for operations in modes}, (name, after, about)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS)
def test_accounts_for_changes_by_sftp_server(requests: list[Ask]) -> None:
    with run_server() as server:
        run_requests(server, requests)
        assert not [entry for entry in server.account if isinstance(entry, AccountLost)]
        check_names(server)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(OPEN_AND_CLOSE, SINGLE_REQUEST), max_size=2).map(flat), GUESSED, REQUESTS)
def test_marks_account_incomplete_after_guessed_handle(
    before: list[Ask], guessed: Ask, after: list[Ask]
) -> None:
    """What the account does not name, it says that it does not know."""
    with run_server() as server:
        run_requests(server, [*before, guessed, *after])
        lost = [entry for entry in server.account if isinstance(entry, AccountLost)]
        if lost:
            assert {entry.reason for entry in lost} == {"an unknown handle"}
        else:
            check_names(server)
