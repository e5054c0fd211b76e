"""SFTP and scp as they flow by, from two peers that say whatever they like.

A message begins with a byte that says who sends it (1: the target), whether it is framed as a packet of SFTP
(2), into what pieces it is cut, and, the first of a session, whether the peers have begun already (not: 128).
"""

from __future__ import annotations

from collections.abc import Sequence

from conchrec.recording.capture.scp import ScpCommand, ScpReader
from conchrec.recording.capture.sftp import SftpReader
from conchrec.recording.format.transfer_account import PATH_MAX, AccountLost, ProtocolReader, TransferFact
from conchrec.ssh.wire import string, uint32, uint64
from fuzz.limits import Broken
from fuzz.sequence import pack, unpack
from fuzz.target import Target

USER, TARGET, USER_PACKET, TARGET_PACKET, FIRST = (bytes((first,)) for first in (0, 1, 2, 3, 130))
SIZES = (1, 3, 7, 64, 1 << 20)
ANNOUNCED = string(b"posix-rename@openssh.com") + string(b"1")
BEGIN = (USER_PACKET + b"\1" + uint32(3), TARGET_PACKET + b"\2" + uint32(3) + ANNOUNCED)
GO = TARGET + b"\0"


class _Account:
    """One session, read twice: as it comes, and byte by byte."""

    def __init__(self, first: ProtocolReader, second: ProtocolReader, *begin: bytes) -> None:
        """``begin`` are the messages that come first in most sessions."""
        self._first = first
        self._second = second
        self._begin: tuple[bytes, ...] | None = begin
        self._lost = False

    def feed(self, data: bytes) -> bool:
        messages = unpack(data)
        begin, self._begin = self._begin, None
        if begin is not None and not (messages and messages[0] and messages[0][0] & 128):
            messages[:0] = begin
        for message in messages:
            first, rest = message[:1] or b"\0", message[1:]
            if first[0] & 2:
                rest = string(rest)
            size = SIZES[(first[0] >> 2) % len(SIZES)]
            pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
            from_target = bool(first[0] & 1)
            operations = self._fed(self._first, pieces, from_target)
            again = self._fed(self._second, [bytes((byte,)) for byte in rest], from_target)
            self._check(operations, again)
        return not self._lost

    def end(self) -> None:
        self._check(list(self._first.end()), list(self._second.end()))
        if self._first.end() or self._first.from_user(b"\0" * 9):
            raise Broken("something comes after the end")

    def _fed(self, reader: ProtocolReader, pieces: Sequence[bytes], from_target: bool) -> list[TransferFact]:
        feed = reader.from_target if from_target else reader.from_user
        return [operation for piece in pieces for operation in feed(piece)]

    def _check(self, operations: list[TransferFact], again: list[TransferFact]) -> None:
        if operations != again:
            raise Broken(f"{operations!r} in these pieces, {again!r} byte by byte")
        for operation, other in zip(operations, again, strict=True):
            if isinstance(operation, AccountLost):
                assert isinstance(other, AccountLost)
                for late, early in (
                    (operation.from_user, other.from_user),
                    (operation.from_target, other.from_target),
                ):
                    if not late.startswith(early):
                        raise Broken("what is left for the recording depends on the pieces")
                if self._lost:
                    raise Broken("it is lost twice")
                self._lost = True
                continue
            if (operation.size is not None) != bool(operation.sha256 or operation.unhashed) or (
                operation.sha256 and operation.unhashed
            ):
                raise Broken(f"neither a hash nor a reason: {operation!r}")
            if (
                not operation.result
                or max(map(len, (operation.path, operation.other, operation.name, operation.detail)))
                > 5 * PATH_MAX
            ):
                raise Broken(f"no result, or too long: {operation!r}")
            (operation.path + operation.other + operation.name + operation.detail + operation.result).encode(
                "utf-8"
            )


def _no_time() -> float:
    return 0.0


def _sftp() -> _Account:
    return _Account(SftpReader(_no_time), SftpReader(_no_time), *BEGIN)


def _scp() -> _Account:
    into = ScpCommand(to_target=True, paths=("/tmp/",))
    return _Account(ScpReader(into, _no_time), ScpReader(into, _no_time), GO)


def _request(kind: int, number: int, *parts: bytes) -> bytes:
    return USER_PACKET + bytes((kind,)) + uint32(number) + b"".join(parts)


def _status(number: int, code: int = 0) -> bytes:
    return TARGET_PACKET + b"\x65" + uint32(number) + uint32(code) + string(b"") + string(b"")


def _joined(*messages: bytes) -> bytes:
    """Packets of one side as one message."""
    packets = [string(message[1:]) if message[0] & 2 else message[1:] for message in messages]
    return bytes((messages[0][0] & 1,)) + b"".join(packets)


def _sftp_corpus() -> list[bytes]:
    """Everything that the reader knows, each in a session of its own."""
    path, other, handle, no_attributes = string(b"/a"), string(b"/b"), string(b"h"), uint32(0)
    attributes = uint32(0x8000000F) + uint64(4) + uint32(1) * 2 + uint32(0o100644) + uint32(5) * 2 + uint32(0)
    given = TARGET_PACKET + b"\x66" + uint32(1) + handle

    def opened(flags: int) -> tuple[bytes, ...]:
        return (_request(3, 1, path, uint32(flags), no_attributes), given)

    def data(number: int, text: bytes) -> bytes:
        return TARGET_PACKET + b"\x67" + uint32(number) + string(text)

    close = (_request(4, 9, handle), _status(9))
    written = _joined(*(_request(6, 2 + at // 4, handle, uint64(at), string(b"data")) for at in (0, 8, 4)))
    replies = _joined(*map(_status, (2, 4, 3)))
    reads = _joined(*(_request(5, 2 + at // 4, handle, uint64(at), uint32(4)) for at in (0, 4, 8)))
    sized = _request(10, 7, handle, attributes)
    answers = _joined(data(3, b"data"), data(2, b"data"), _status(4, 1))
    read = _request(5, 2, handle, uint64(0), uint32(4))
    stat = TARGET_PACKET + b"\x69" + uint32(8) + attributes
    listed = TARGET_PACKET + b"\x68" + uint32(2) + uint32(1) + string(b"a") + string(b"-rw a") + attributes
    sessions: list[tuple[bytes, ...]] = [
        (*opened(26), written, replies, *close),
        (*opened(2), written, _joined(sized, close[0]), _joined(replies, _status(7), _status(9))),
        (*opened(1), reads, answers, *close),
        (*opened(1), _joined(read, close[0]), _joined(_status(9), data(2, b"data"))),
        (
            _joined(_request(17, 8, path), *opened(1)[:1]),
            _joined(stat, given),
            read,
            data(2, b"data"),
            *close,
        ),
        (*opened(1), _request(8, 8, handle), stat, *close),
        (_request(11, 1, path), given, _request(12, 2, handle), listed, *close),
        *(
            (_request(kind, 1, body), _status(1))
            for kind, body in (
                *((13, path), (14, path + no_attributes), (15, path), (9, path + attributes)),
                *((16, path), (18, path + other), (19, path), (20, path + other)),
                *((200, string(name) + path + other) for name in (b"posix-rename@openssh.com", b"who@knows")),
                (200, string(b"lsetstat@openssh.com") + path + attributes),
            )
        ),
        (
            *opened(27),
            _request(200, 2, string(b"copy-data"), handle, uint64(0) * 2, handle, uint64(0)),
            *close,
        ),
        (*opened(17), *close),
        (_request(6, 2, handle, uint64(0), string(b"x")), _request(10, 3, handle, attributes)),
        (
            _request(200, 1, string(b"limits@openssh.com")),
            TARGET_PACKET + b"\xc9" + uint32(1) + uint64(1) * 4,
        ),
        (FIRST + BEGIN[0][1:], *BEGIN[1:], *opened(26), *close),
    ]
    return [pack(session) for session in sessions]


def _scp_corpus() -> list[bytes]:
    file = (USER + b"C0644 4 a\n", GO, USER + b"data\0", GO)
    empty = (USER + b"C0644 0 b\n", GO, GO, USER + b"\0")
    no = TARGET + b"\1scp: /tmp/a: Is a directory\n"
    half = (USER + b"C0644 4 a\n", GO, USER + b"data\1short\n", TARGET + b"\2no\n")
    sessions: list[tuple[bytes, ...]] = [
        (USER + b"T1 0 1 0\n", GO, *file),
        empty,
        (USER + b"D0755 0 d\n", GO, *file, USER + b"E\n", GO),
        (USER + b"C0644 4 a\n", no, USER + b"D0755 0 d\n", no, *empty),
        (USER + b"C0644 4 a\ndata\0C0644 0 b\n\0", TARGET + bytes(4)),
        (USER + b"\1a: No such file\n", *half),
    ]
    return [pack(session) for session in sessions]


SFTP = Target(
    name="sftp",
    about="files that move by SFTP: conchrec/recording/capture/sftp.py",
    corpus=_sftp_corpus,
    begin=_sftp,
    packed=True,
    length=4,
)
SCP = Target(
    name="scp",
    about="files that move by scp's old protocol: conchrec/recording/capture/scp.py",
    corpus=_scp_corpus,
    begin=_scp,
    packed=True,
    length=4,
)
