"""SFTP as bytes, for tests: requests with their ids, and answers, in the order in which they pass."""

from __future__ import annotations

from conchrec.recording.capture import sftp_wire as sftp
from conchrec.recording.capture.sftp import SftpReader
from conchrec.recording.format.transfer_account import TransferFact


def uint32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def uint64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def string(value: bytes) -> bytes:
    return uint32(len(value)) + value


NO_ATTRIBUTES = uint32(0)


def size_attribute(size: int) -> bytes:
    return uint32(1) + uint64(size)


class Talk:
    """The bytes that pass, in ``passed``: (from the user?, bytes). With ``begun`` without INIT and
    VERSION."""

    def __init__(self, *, begun: bool = False, extension: bytes = b"posix-rename@openssh.com") -> None:
        self.passed: list[tuple[bool, bytes]] = []
        self._number = 100
        if not begun:
            self.user(sftp.INIT, uint32(3))
            self.target(sftp.VERSION_REPLY, uint32(3) + string(extension) + string(b"1"))

    def user(self, kind: int, body: bytes) -> None:
        self.passed.append((True, string(bytes((kind,)) + body)))

    def target(self, kind: int, body: bytes) -> None:
        self.passed.append((False, string(bytes((kind,)) + body)))

    def ask(self, kind: int, body: bytes) -> int:
        """Send a request. Returns its id."""
        self._number += 1
        self.user(kind, uint32(self._number) + body)
        return self._number

    def status(self, number: int, code: int = sftp.OK) -> None:
        self.target(sftp.STATUS, uint32(number) + uint32(code) + string(b"as it is") + string(b""))

    def data(self, number: int, data: bytes) -> None:
        self.target(sftp.DATA, uint32(number) + string(data))

    def open(self, path: bytes, flags: int, handle: bytes = b"h") -> None:
        number = self.ask(sftp.OPEN, string(path) + uint32(flags) + NO_ATTRIBUTES)
        self.target(sftp.HANDLE_REPLY, uint32(number) + string(handle))

    def to_write(self, path: bytes, handle: bytes = b"h") -> None:
        self.open(path, sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC, handle)

    def to_read(self, path: bytes, handle: bytes = b"h") -> None:
        self.open(path, sftp.FXF_READ, handle)

    def ask_write(self, offset: int, data: bytes, handle: bytes = b"h") -> int:
        return self.ask(sftp.WRITE, string(handle) + uint64(offset) + string(data))

    def write(self, offset: int, data: bytes, handle: bytes = b"h", code: int = sftp.OK) -> None:
        self.status(self.ask_write(offset, data, handle), code)

    def ask_read(self, offset: int, length: int = 32768, handle: bytes = b"h") -> int:
        return self.ask(sftp.READ, string(handle) + uint64(offset) + uint32(length))

    def read(self, offset: int, data: bytes, handle: bytes = b"h", length: int = 32768) -> None:
        self.data(self.ask_read(offset, length, handle), data)

    def end_of_file(self, offset: int, handle: bytes = b"h") -> None:
        self.status(self.ask_read(offset, handle=handle), sftp.EOF)

    def close(self, handle: bytes = b"h", code: int = sftp.OK) -> None:
        self.status(self.ask(sftp.CLOSE, string(handle)), code)

    def change(self, kind: int, body: bytes, code: int = sftp.OK) -> None:
        self.status(self.ask(kind, body), code)

    def extended(self, name: bytes, body: bytes, code: int = sftp.OK) -> None:
        self.change(sftp.EXTENDED, string(name) + body, code)


def listen(talk: Talk, reader: SftpReader | None = None, *, end: bool = True) -> list[TransferFact]:
    """Return all that is reported for these bytes."""
    reader = reader or SftpReader(lambda: 0.0)
    facts: list[TransferFact] = []
    for from_user, data in talk.passed:
        facts += (reader.from_user if from_user else reader.from_target)(data)
    return [*facts, *(reader.end() if end else ())]
