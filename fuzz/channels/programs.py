"""What the instrumented server runs: echo, sink, source, and an SFTP server with its files in memory."""

from __future__ import annotations

import hashlib
from typing import Protocol

from fuzz.channels import wire as w

Output = list[tuple[bool, bytes]]


class Program(Protocol):
    """A process of the server. Its output is (is it standard error?, bytes), in order."""

    def began(self) -> Output:
        """Return the output at the start."""

    def read(self, data: bytes) -> Output:
        """Return the output for this input."""

    def ended(self) -> Output:
        """End of input."""


class Sink:
    """Says nothing."""

    def began(self) -> Output:
        """Return the output at the start."""
        return []

    def read(self, data: bytes) -> Output:
        """Return the output for this input."""
        return []

    def ended(self) -> Output:
        """Return the output at the end of the input."""
        return []


class Echo(Sink):
    """Writes what it reads, and some of it to standard error."""

    def read(self, data: bytes) -> Output:
        """Return the output for this input."""
        return [(False, data), (True, data[:7])]


class Source(Sink):
    """Writes before it reads."""

    def began(self) -> Output:
        """Return the output at the start."""
        return [(False, b"Welcome to the instrumented server\r\n$ "), (True, b"motd\n"), (False, b"x" * 5000)]


OPEN, CLOSE, READ, WRITE, REMOVE, MKDIR, RENAME, STATUS, HANDLE, DATA = 3, 4, 5, 6, 13, 14, 18, 101, 102, 103
INIT, VERSION, SETSTAT = 1, 2, 9
READ_FLAG, WRITE_FLAG, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32
OK, EOF, NO_FILE, FAILURE, UNSUPPORTED = 0, 1, 2, 4, 8


class SftpServer(Sink):
    """SFTP version 3, as far as clients need it to move files. ``done`` is what it did, in order: the
    operation, the path, and the bytes read or written with their SHA-256."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytearray] = {
            name: bytearray(b"a message\n" * 50) for name in (b"/etc/motd", b"/etc/passwd")
        }
        self.done: list[tuple[str, str, str]] = []
        self._handles: dict[bytes, bytes] = {}
        self._moved: dict[bytes, tuple[bytearray, bytearray]] = {}
        self._next = 0
        self._buffer = b""
        #: A real server ends on an invalid packet.
        self.broken = False

    def read(self, data: bytes) -> Output:
        """Return the output for this input."""
        self._buffer += data
        output: Output = []
        while not self.broken and len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size == 0 or size > 256 * 1024:
                self.broken = True
                break
            if len(self._buffer) < 4 + size:
                break
            packet, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]
            try:
                answer = self._packet(packet[0], w.Cursor(packet[1:]))
            except w.Short:
                self.broken = True
                break
            output.append((False, w.text(answer)))
        return output

    def ended(self) -> Output:
        """Return the output at the end of the input."""
        for handle in tuple(self._handles):
            self._close(handle)
        return []

    def _packet(self, kind: int, cursor: w.Cursor) -> bytes:
        number = cursor.u32()
        if kind == INIT:
            return bytes([VERSION]) + w.u32(3)
        reply = w.u32(number)
        if kind == OPEN:
            return self._open(reply, cursor.text(), cursor.u32())
        if kind == CLOSE:
            return self._status(reply, OK if self._close(cursor.text()) else FAILURE)
        if kind in (READ, WRITE):
            handle, offset = cursor.text(), cursor.u32() << 32 | cursor.u32()
            if handle not in self._handles:
                return self._status(reply, FAILURE)
            if kind == READ:
                return self._read(reply, handle, offset, cursor.u32())
            return self._write(reply, handle, offset, cursor.text())
        if kind == REMOVE:
            path = cursor.text()
            there = self.files.pop(path, None) is not None
            self._note("remove", path, ok=there)
            return self._status(reply, OK if there else NO_FILE)
        if kind == RENAME:
            old, new = cursor.text(), cursor.text()
            there = old in self.files
            if there:
                self.files[new] = self.files.pop(old)
            self._note("rename", old, ok=there)
            return self._status(reply, OK if there else NO_FILE)
        if kind == MKDIR:
            self._note("mkdir", cursor.text(), ok=True)
            return self._status(reply, OK)
        return self._status(reply, UNSUPPORTED)

    def _status(self, reply: bytes, code: int) -> bytes:
        return bytes([STATUS]) + reply + w.u32(code) + w.text(b"") + w.text(b"")

    def _note(self, operation: str, path: bytes, *, ok: bool) -> None:
        self.done.append((operation, path.decode("latin-1"), "ok" if ok else "failed"))

    def _open(self, reply: bytes, path: bytes, flags: int) -> bytes:
        if path not in self.files and not flags & CREATE:
            self.done.append(("open", path.decode("latin-1"), "failed"))
            return self._status(reply, NO_FILE)
        if path not in self.files or flags & TRUNCATE:
            self.files[path] = bytearray()
        handle = w.u32(self._next)
        self._next += 1
        self._handles[handle] = path
        self._moved[handle] = bytearray(), bytearray()
        return bytes([HANDLE]) + reply + w.text(handle)

    def _read(self, reply: bytes, handle: bytes, offset: int, size: int) -> bytes:
        data = bytes(self.files.get(self._handles[handle], b"")[offset : offset + min(size, 32768)])
        if not data:
            return self._status(reply, EOF)
        self._moved[handle][0].extend(data)
        return bytes([DATA]) + reply + w.text(data)

    def _write(self, reply: bytes, handle: bytes, offset: int, data: bytes) -> bytes:
        contents = self.files.get(self._handles[handle])
        if contents is None or offset > 1 << 20:
            return self._status(reply, FAILURE)
        if len(contents) < offset:
            contents.extend(bytes(offset - len(contents)))
        contents[offset : offset + len(data)] = data
        self._moved[handle][1].extend(data)
        return self._status(reply, OK)

    def _close(self, handle: bytes) -> bool:
        path = self._handles.pop(handle, None)
        if path is None:
            return False
        read, written = self._moved.pop(handle)
        for operation, data in (("read", read), ("write", written)):
            if data:
                digest = hashlib.sha256(data).hexdigest()
                self.done.append((operation, path.decode("latin-1"), f"{len(data)} {digest}"))
        return True


def make_program(name: str, kind: bytes, extra: bytes) -> Program:
    """What runs for this start; the subsystem ``sftp`` is a server of files whatever ``name`` says."""
    if kind == b"subsystem" and extra[4:] == b"sftp":
        return SftpServer()
    return {"echo": Echo, "sink": Sink, "source": Source}[name]()
