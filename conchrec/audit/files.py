"""The files of an audit log: the current one and those that logrotate has moved away, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from conchrec.audit.chain import AuditLine, parse
from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode

LONGEST = 16 * 1024 * 1024
"""The most bytes of a line. A longer one is read as several lines, none of which is ours."""
_MOST_OLDER_LINES = 10_000
#: What logrotate adds to a name: .1, -20261129, -2026-11-29, -1796000000, and the ending of the compression.
_ROTATED = r"([.-][0-9][0-9T:_-]*)?(\.(gz|bz2|xz|zst))?"

_GZIP, _BZIP2, _XZ, _ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


class Unreadable(RecordingError):
    """A compressed file is damaged."""

    default_code = ReasonCode.AUDIT_UNREADABLE


def log_files(path: Path) -> tuple[Path, ...]:
    """Return the log at ``path`` and its rotated files: ``audit.jsonl.1``, ``audit.jsonl-20261129.gz`` …"""
    pattern = re.compile(re.escape(path.name) + _ROTATED)
    files = (file for file in path.parent.iterdir() if pattern.fullmatch(file.name) and file.is_file())
    return tuple(sorted(files)) if path.parent.is_dir() else ()


def oldest_first(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return each file once, sorted by the time of its first line. Raises OSError and Unreadable.

    Where the clock was set back, the files that begin with the same chain are in the order of that chain.
    """
    distinct = {path.resolve(): path for path in paths}.values()
    firsts = {path: _first(path) for path in distinct}
    ordered = sorted(firsts, key=lambda path: _time(firsts[path]))
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(ordered):
        first = firsts[path]
        if first is not None:
            positions[first.chain].append(position)
    for chain_positions in positions.values():
        files = [ordered[position] for position in chain_positions]
        files.sort(key=lambda path: _number(firsts[path]))
        for position, path in zip(chain_positions, files, strict=True):
            ordered[position] = path
    return tuple(ordered)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed; the last one may have no newline. Raises OSError and
    Unreadable."""
    try:
        with path.open("rb") as raw, closing(_unpacked(raw)) as file:
            while line := file.readline(LONGEST):
                yield line
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise Unreadable(f"{path} is damaged: cannot decompress it", repr(error)) from error


def _unpacked(raw: BinaryIO) -> BinaryIO:
    start = raw.read(8)
    raw.seek(0)
    if start.startswith(_GZIP):
        return cast(BinaryIO, gzip.open(raw))
    if start.startswith(_BZIP2):
        return cast(BinaryIO, bz2.open(raw))
    if start.startswith(_XZ):
        return cast(BinaryIO, lzma.open(raw))
    if start.startswith(_ZSTANDARD):
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, reader)))
    return raw


def _first(path: Path) -> AuditLine | None:
    """Return the first line of a chain. Lines from before there was a chain are read up to a limit."""
    for number, raw in enumerate(read_lines(path)):
        if (line := parse(raw)) is not None:
            return line
        if number == _MOST_OLDER_LINES:
            break
    return None


def _time(first: AuditLine | None) -> str:
    return first.text("time") if first is not None else ""


def _number(first: AuditLine | None) -> int:
    return first.number if first is not None else -1
