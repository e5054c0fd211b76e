"""The files of an audit log: the live one and those that logrotate has moved away, packed or not."""

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
"""Bytes of a line; what is longer is read as several, and none of them is ours."""
_LINES_TO_LOOK_AT = 10_000
#: What logrotate adds to a name: .1, -20261129, -2026-11-29, -1796000000, and what packed it.
_ROTATED = r"([.-][0-9][0-9T:_-]*)?(\.(gz|bz2|xz|zst))?"

_GZIP, _BZIP2, _XZ, _ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


class Unreadable(RecordingError):
    """A packed file is damaged."""

    default_code = ReasonCode.AUDIT_UNREADABLE


def log_files(path: Path) -> tuple[Path, ...]:
    """The log at ``path`` and its rotated files: ``audit.jsonl.1``, ``audit.jsonl-20261129.gz`` …"""
    pattern = re.compile(re.escape(path.name) + _ROTATED)
    there = (each for each in path.parent.iterdir() if pattern.fullmatch(each.name) and each.is_file())
    return tuple(sorted(there)) if path.parent.is_dir() else ()


def in_order(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Oldest first, each file once. Raises OSError, Unreadable.

    By the time of the first line; where the clock was put back, the files that begin with the same chain are
    still in that chain's order."""
    distinct = {path.resolve(): path for path in paths}.values()
    firsts = {path: _first(path) for path in distinct}
    ordered = sorted(firsts, key=lambda path: _time(firsts[path]))
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(ordered):
        first = firsts[path]
        if first is not None:
            places[first.chain].append(place)
    for chain_places in places.values():
        same = sorted((ordered[place] for place in chain_places), key=lambda path: _number(firsts[path]))
        for place, path in zip(chain_places, same, strict=True):
            ordered[place] = path
    return tuple(ordered)


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked; the last one may have no newline. Raises OSError, Unreadable."""
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
    """The first line of a chain. What a log holds from before there was a chain is not read to its end."""
    for number, raw in enumerate(read_lines(path)):
        if (line := parse(raw)) is not None:
            return line
        if number == _LINES_TO_LOOK_AT:
            break
    return None


def _time(first: AuditLine | None) -> str:
    return first.text("time") if first is not None else ""


def _number(first: AuditLine | None) -> int:
    return first.number if first is not None else -1
