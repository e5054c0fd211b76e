"""The forms of a recording on the disk: plain, compressed (zstd), encrypted (age), or compressed and
encrypted.

A compressed recording can be read up to its last flush, even if its writer was killed: each flush ends a
block, and about each second a frame ends. An encrypted one can only be read by its recipients, and not by its
writer. Both libraries are loaded when they are needed.
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
from conchrec.recording.storage.layout import COMPRESSED, ENCRYPTED
from conchrec.recording.storage.recipients import Identities

if TYPE_CHECKING:
    import zstandard

_LEVEL = 3
_BLOCK = 256 * 1024


class Encrypted(RecordingError):
    """The recording can only be read with a private key of one of its recipients."""

    default_code = ReasonCode.RECORDING_ENCRYPTED


class ZstdFrames:
    """A Compressor. Each ``cut`` ends a frame, so that an idle session holds no memory."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdCompressionObj | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a frame, and with it the memory of a compressor."""
        return self._frame is not None

    def compress(self, lines: Sequence[bytes]) -> bytes:
        """Return a block of the current frame that holds these lines."""
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        blocks = [self._frame.compress(piece) for piece in lines]
        return b"".join((*blocks, self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)))

    def cut(self) -> bytes:
        """Return the end of the current frame; empty without one."""
        frame, self._frame = self._frame, None
        return b"" if frame is None else frame.flush()


def is_compressed(path: Path) -> bool:
    """Whether the name says that the recording is compressed."""
    return path.name.removesuffix(ENCRYPTED).endswith(COMPRESSED)


def is_encrypted(path: Path) -> bool:
    """Whether the name says that the recording is encrypted."""
    return path.name.endswith(ENCRYPTED)


@contextmanager
def open_recording(path: Path, identities: Identities = ()) -> Iterator[BinaryIO]:
    """Yield a recording as a plain file to read; where it is cut off, up to where it can be read.

    Raises OSError, Encrypted where none of the identities fits, and RecordingError where it is malformed.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(open(path, "rb", opener=open_regular_file))
        if is_encrypted(path):
            file = stack.enter_context(_decrypt(file, path, identities))
        yield stack.enter_context(decompress(file, is_compressed(path)))


@contextmanager
def decompress(file: BinaryIO, is_compressed_file: bool) -> Iterator[BinaryIO]:
    """Yield the decompressed contents of a file from its position on; where it is cut off, up to where it can
    be read.

    Raises RecordingError where it is malformed.
    """
    if not is_compressed_file:
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
def _decrypt(file: BinaryIO, path: Path, identities: Identities) -> Iterator[BinaryIO]:
    import pyrage

    if not identities:
        raise Encrypted(f"{path.name} is encrypted: use --identity FILE with the key of a recipient")
    read_end, write_end = os.pipe()
    errors: list[str] = []

    def work() -> None:
        with open(write_end, "wb") as out:
            try:
                pyrage.decrypt_io(file, out, list(identities))
            except BrokenPipeError:
                pass  # the reader needs no more
            except (pyrage.DecryptError, OSError) as error:
                errors.append(str(error))

    worker = threading.Thread(target=work, name="decrypt", daemon=True)
    worker.start()
    try:
        with _CheckedReader(open(read_end, "rb", buffering=0), errors, worker, path.name) as plain:
            yield plain
    finally:
        worker.join()


class _CheckedReader(io.BufferedReader):
    """Raises the error of the decryption at the end of the file."""

    def __init__(self, file: io.FileIO, failed: list[str], worker: threading.Thread, name: str) -> None:
        super().__init__(file, _BLOCK)
        self._failed = failed
        self._worker = worker
        self._name = name

    def _check_end(self, data: bytes) -> bytes:
        if not data:
            self._worker.join()
            if self._failed:
                raise Encrypted(f"cannot decrypt {self._name}: {self._failed[0]}")
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        return self._check_end(super().read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._check_end(super().readline(size))

    def readinto(self, buffer: object, /) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]
        if not count:
            self._check_end(b"")
        return count


class Sink(Protocol):
    """A file that encrypted data is written to."""

    def write(self, data: bytes, /) -> int:
        """Write the data."""

    def flush(self) -> None:
        """Flush the file."""


def encrypt(source: BinaryIO, sink: Sink, recipients: Sequence[object]) -> None:
    """Encrypt all of ``source`` for the recipients. Blocks. Raises OSError."""
    import pyrage

    pyrage.encrypt_io(source, sink, list(recipients))


def open_regular_file(path: str, flags: int) -> int:
    """An opener for ``open``: it follows no link, and a pipe does not block it."""
    return open_regular(path, flags)
