"""How a recording may lie on the disk: plain, packed (zstd), encrypted (age), or packed and encrypted.

What is packed can be read up to the last flush, whatever became of its writer: each flush ends a block,
and about each second a frame ends. What is encrypted is so for the recipients alone: who wrote it can
not read it any more. Both libraries are loaded when they are needed.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from conchrec.errors import RecordingError
from conchrec.files import open_regular
from conchrec.reasons import ReasonCode
from conchrec.recording.storage.layout import PACKED, SEALED_AWAY
from conchrec.recording.storage.recipients import Identities

if TYPE_CHECKING:
    import zstandard

_LEVEL = 3
_BLOCK = 256 * 1024


class Encrypted(RecordingError):
    """It can be read with a private key of its recipients only."""

    default_code = ReasonCode.RECORDING_ENCRYPTED


class ZstdPacker:
    """A Packer: a frame from each ``cut`` to the next, so that a session that is idle holds no memory."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdCompressionObj | None = None

    def pack(self, lines: Sequence[bytes]) -> bytes:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        packed = [self._frame.compress(piece) for piece in lines]
        return b"".join((*packed, self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)))

    def cut(self) -> bytes:
        frame, self._frame = self._frame, None
        return b"" if frame is None else frame.flush()


def is_packed(path: Path) -> bool:
    return path.name.removesuffix(SEALED_AWAY).endswith(PACKED)


def is_encrypted(path: Path) -> bool:
    return path.name.endswith(SEALED_AWAY)


@contextmanager
def opened(path: Path, identities: Identities = ()) -> Iterator[BinaryIO]:
    """The bytes of a cast, plain, however it lies there; up to where it can be read, if it is cut off.

    Raises OSError, Encrypted where none of the identities is good for it, RecordingError where it is broken.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(open(path, "rb", opener=regular))
        if is_encrypted(path):
            file = stack.enter_context(_decrypted(file, path, identities))
        yield stack.enter_context(unpacked(file, is_packed(path)))


@contextmanager
def unpacked(file: BinaryIO, packed: bool) -> Iterator[BinaryIO]:
    """What a file holds, from where it stands; up to where it can be read, if it is cut off.

    RecordingError where it is broken.
    """
    if not packed:
        yield file
        return
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    try:
        yield io.BufferedReader(reader, _BLOCK)
    except zstandard.ZstdError as error:
        raise RecordingError(
            "cannot decompress the recording", str(error), code=ReasonCode.RECORDING_UNREADABLE
        ) from error


@contextmanager
def _decrypted(file: BinaryIO, path: Path, identities: Identities) -> Iterator[BinaryIO]:
    import pyrage

    if not identities:
        raise Encrypted(f"{path.name} is encrypted: use --identity FILE with the key of a recipient")
    ours, theirs = os.pipe()
    failed: list[str] = []

    def work() -> None:
        with open(theirs, "wb") as out:
            try:
                pyrage.decrypt_io(file, out, list(identities))
            except BrokenPipeError:
                pass  # the reader has seen enough
            except (pyrage.DecryptError, OSError) as error:
                failed.append(str(error))

    worker = threading.Thread(target=work, name="decrypt", daemon=True)
    worker.start()
    try:
        with _Checked(open(ours, "rb", buffering=0), failed, worker, path.name) as plain:
            yield plain
    finally:
        worker.join()


class _Checked(io.BufferedReader):
    """At its end it knows whether that was the end."""

    def __init__(self, file: io.FileIO, failed: list[str], worker: threading.Thread, name: str) -> None:
        super().__init__(file, _BLOCK)
        self._failed = failed
        self._worker = worker
        self._name = name

    def _ended(self, data: bytes) -> bytes:
        if not data:
            self._worker.join()
            if self._failed:
                raise Encrypted(f"cannot decrypt {self._name}: {self._failed[0]}")
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        return self._ended(super().read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._ended(super().readline(size))

    def readinto(self, buffer: object, /) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]
        if not count:
            self._ended(b"")
        return count


class Sink(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


def encrypt(source: BinaryIO, sink: Sink, recipients: Sequence[object]) -> None:
    """All of ``source``, for the recipients. Blocks; raises OSError."""
    import pyrage

    pyrage.encrypt_io(source, sink, list(recipients))


def regular(path: str, flags: int) -> int:
    """A link is not followed, and a pipe does not stop us for ever."""
    return open_regular(path, flags)
