"""``conchrec recordings …``: list, show and play what was recorded.

Exit codes: 0 done, 1 there is no such recording or it can not be read, 78 the configuration.
Everything that came from outside is printed escaped, and a recording is played through a filter:
neither may make the reader's terminal do, or answer, anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from conchrec.errors import RecordingError
from conchrec.recording.asciicast import OUTPUT, Event
from conchrec.recording.library import Entry, Library, events
from conchrec.recording.replay import RESET, SafeOutput

FOUND, NOT_FOUND = 0, 1
_LONGEST_COMMAND = 60


def listing(library: Library, out: TextIO, *, as_json: bool) -> int:
    """One line for each recording, oldest first; or a JSON array."""
    if as_json:
        _dump([_summary(entry) for entry in library.entries()], out)
        return FOUND
    for entry in library.entries():
        fields = _summary(entry)
        print(
            entry.sid,
            entry.started.strftime("%Y-%m-%d %H:%M:%S"),
            f"{entry.manifest.duration:8.1f}s" if entry.manifest else " " * 8 + "-",
            f"{entry.status:11}",
            shown(f"{fields.get('user', '-')} {fields.get('login', '-')}@{fields.get('target', '-')}"),
            shown(_what(fields)),
            file=out,
        )
    return FOUND


def show(library: Library, sid: str, out: TextIO, errors: TextIO, *, as_json: bool) -> int:
    """All that is known of one recording."""
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    fields = _summary(entry)
    if as_json:
        _dump(fields, out)
    else:
        width = max(len(name) for name in fields)
        for name, value in fields.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{name:{width}}  {shown(text)}", file=out)
    return NOT_FOUND if entry.problem else FOUND


def play(
    library: Library,
    sid: str,
    out: TextIO,
    errors: TextIO,
    *,
    speed: float = 1,
    idle: float | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Replay one recording in its own time; into a pipe, at once."""
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    terminal = out.isatty()
    safe = SafeOutput()
    try:
        for pause, event in _paced(events(entry.path), speed, idle):
            if terminal and pause > 0:
                out.flush()
                wait(pause)
            if event.code == OUTPUT:
                out.write(safe.feed(event.text))
    except (RecordingError, OSError) as error:
        print(f"conchrec: {sid}: {shown(str(error))}", file=errors)
        return NOT_FOUND
    except KeyboardInterrupt:
        pass  # the reviewer has seen enough
    finally:
        if terminal:
            out.write(RESET + "\r\n")
        out.flush()
    return FOUND


def shown(text: str) -> str:
    """Text from outside as a terminal may print it: what is not printable as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _paced(played: Iterable[Event], speed: float, idle: float | None) -> Iterator[tuple[float, Event]]:
    before = 0.0
    for event in played:
        pause = event.time - before
        before = max(before, event.time)
        yield (pause if idle is None else min(pause, idle)) / speed, event


def _summary(entry: Entry) -> dict[str, object]:
    """The manifest, or of a live recording what its header says."""
    fields: dict[str, object] = {"sid": entry.sid, "status": entry.status, "path": str(entry.path)}
    if entry.manifest is not None:
        manifest: dict[str, object] = json.loads(entry.manifest.encode())
        return manifest | fields
    if entry.header is not None:
        fields |= entry.header.ours
        if entry.header.command:
            fields["command"] = entry.header.command
    if entry.problem:
        fields["problem"] = entry.problem
    return fields


def _what(fields: dict[str, object]) -> str:
    what = f"{fields.get('kind', '-')} {fields.get('command') or fields.get('subsystem') or ''}".rstrip()
    return what if len(what) <= _LONGEST_COMMAND else what[: _LONGEST_COMMAND - 1] + "…"


def _dump(value: object, out: TextIO) -> None:
    out.write(json.dumps(value, indent=1).replace("\x7f", "\\u007f") + "\n")


def _no_such(sid: str, errors: TextIO) -> int:
    print(f"conchrec: no recording {shown(sid)}", file=errors)
    return NOT_FOUND
