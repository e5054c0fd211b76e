"""What must hold after a case: the record says what the server was asked, accepted and was given."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fuzz.channels import wire as w
from fuzz.channels.programs import SftpServer
from fuzz.channels.runner import Outcome, Recording, pairs
from fuzz.channels.server import ServerChannel


class Record:
    """Everything that was written about one case, to be searched."""

    def __init__(self, outcome: Outcome) -> None:
        texts: list[str] = []
        for recording in outcome.recordings:
            for line in recording.lines:
                texts.extend(_texts(line))
            texts.extend(_texts(recording.manifest))
        for event in outcome.events:
            texts.extend(_texts(event))
        self.text = "\n".join(texts)
        #: Digests of all messages of a channel but data, one for each direction.
        manifests = [closed.manifest for closed in outcome.recordings if closed.manifest is not None]
        controls = [entry for manifest in manifests for entry in manifest.get("control", {}).values()]
        self.controls = {entry["sha256"] for entry in controls}

    def holds(self, value: bytes) -> bool:
        """It has these bytes, or their SHA-256."""
        if not value:
            return True
        if hashlib.sha256(value).hexdigest() in self.text or value.hex() in self.text:
            return True
        return any(form in self.text for form in forms(value))


def forms(value: bytes) -> Iterator[str]:
    """The ways in which a record may write bytes without losing any."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        yield value.decode("utf-8", "backslashreplace")
        yield value.decode("utf-8", "surrogateescape")
        text = value.decode("utf-8", "backslashreplace")
    else:
        yield text
        if value.decode("latin-1").isprintable():
            return
    yield "".join(_escaped(character) for character in text)
    yield "".join(_escaped(character) for character in value.decode("latin-1"))
    yield json.dumps(text)[1:-1]
    yield repr(value)[2:-1]
    yield repr(text)[1:-1]


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield str(name)
            yield from _texts(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _texts(member)


def same(value: bytes, shown: str, digest: str = "") -> bool:
    """Is ``shown`` what a record says of these bytes? It may be cut where it has their digest."""
    if digest:
        whole = digest == hashlib.sha256(value).hexdigest()
        return whole and any(form.startswith(shown) for form in forms(value))
    return shown in forms(value)


def check(outcome: Outcome, *, honest: bool) -> list[str]:
    """Everything that is wrong."""
    texts = [f"to the client: {text}" for text in outcome.client.violations]
    texts += [f"to the server: {text}" for text in outcome.server.violations]
    texts += [f"stuck: {text}" for text in outcome.stuck]
    if honest and not outcome.alive:
        texts.append("an honest client lost its connection")
    record = Record(outcome)
    texts += _unheld(outcome, record)
    sessions = [channel for channel in outcome.server.channels if channel.kind == b"session"]
    if len(sessions) > len(outcome.recordings):
        texts.append(f"{len(outcome.recordings)} recordings of {len(sessions)} sessions")
    nears = {id(far): near for near, far in pairs(outcome.client, outcome.server)}
    for recording, channel in zip(outcome.recordings, sessions, strict=False):
        where = f"channel {channel.number}: "
        texts += [where + text for text in _session(outcome, recording, channel, nears.get(id(channel)))]
    for channel in outcome.server.channels:
        if channel.kind != b"session" and channel.opened and not channel.is_back:
            texts += [f"forward {channel.number}: {text}" for text in _forward(outcome, channel)]
    return list(dict.fromkeys(texts))


# --- nothing passes that the record does not hold


def _unheld(outcome: Outcome, record: Record) -> Iterator[str]:
    for side, payloads in (("server", outcome.server.payloads), ("client", outcome.client.payloads)):
        for where, body in payloads:
            for value in _values(where, body):
                if not record.holds(value):
                    yield f"unrecorded to the {side}: {where}: {len(value)} bytes {value[:30]!r}"
    for channel in outcome.server.channels:
        covered = bool(channel.control.digests() & record.controls)
        for request in channel.received:
            where = f"to the server: channel {channel.number}"
            shown = channel.kind == b"session" and request.request.name in SHOWN
            yield from _unheld_request(record, request.request, where, covered=covered, shown=shown)
    for near in outcome.client.channels.values():
        covered = bool(near.control.digests() & record.controls)
        for own_request in near.requests:
            yield from _unheld_request(
                record, own_request, f"to the client: channel {near.index}", covered=covered
            )


#: Addresses that the audit shows field by field.
ADDRESSES = {
    "open direct-tcpip": "titi",
    "open forwarded-tcpip": "titi",
    "open x11": "ti",
    f"global request {b'tcpip-forward'!r}": "ti",
}


def _values(where: str, body: bytes) -> list[bytes]:
    layout = ADDRESSES.get(where)
    if layout is not None:
        parsed = w.fields(layout, body)
        if parsed is not None:
            return [part for part in (*parsed[0], parsed[1]) if isinstance(part, bytes)]
    return [body] if body else []


#: Requests whose fields must be in the record by themselves: what runs, and what it may run.
SHOWN = frozenset((b"exec", b"subsystem", b"env"))


def _unheld_request(
    record: Record, request: w.Request, where: str, *, covered: bool, shown: bool = False
) -> Iterator[str]:
    """``covered``: the record has a digest of all messages of this channel, with this one among them;
    ``shown``: that is not enough."""
    name = request.name.decode("latin-1") if request.name in w.LAYOUTS else f"{request.name!r}"
    layout = w.LAYOUTS.get(request.name)
    if not shown and layout is not None and (covered or record.holds(request.extra)):
        return
    parsed = w.fields(layout, request.extra) if layout is not None else None
    values = [request.extra] if parsed is None else [*parsed[0], parsed[1]]
    for value in values:
        if isinstance(value, bytes) and not record.holds(value):
            yield f"unrecorded {where}: {name}: {len(value)} bytes {value[:30]!r}"


# --- sessions


def _session(outcome: Outcome, recording: Recording, channel: ServerChannel, near: Any) -> Iterator[str]:
    manifest = recording.manifest
    if manifest is None:
        yield "the recording is not sealed"
        return
    mine = [event for event in outcome.events if event.get("sid") == recording.sid]
    yield from _start(manifest, mine, channel)
    yield from _environment(recording, channel)
    yield from _input(manifest, mine, channel)
    yield from _output(recording, manifest, channel, near)
    yield from _files(manifest, channel)
    yield from _control(manifest, channel, near)


def _control(manifest: dict[str, Any], channel: ServerChannel, near: Any) -> Iterator[str]:
    """The digests cover each message but data that came to an end, and no other."""
    control = manifest.get("control", {})
    ends: tuple[tuple[str, str, Any], ...] = (("user", "server", channel), ("target", "client", near))
    for name, side, end in ends:
        if end is None or (end is near and b"conchrec: " in near.stderr):
            # The proxy itself ended the session, and said why.
            continue
        entry = control.get(name, {"sha256": hashlib.sha256().hexdigest()})
        if entry["sha256"] not in end.control.digests():
            yield f"the digest of control messages is not that of what the {side} was given"


def _start(manifest: dict[str, Any], mine: list[dict[str, Any]], channel: ServerChannel) -> Iterator[str]:
    starts = [event for event in mine if event.get("event") == "session.start"]
    ends = [event for event in mine if event.get("event") == "session.end"]
    if len(ends) != len(starts) or len(ends) > 1:
        yield f"{len(starts)} session.start and {len(ends)} session.end"
    for start in channel.starts:
        kind, argument = _argument(start.request)
        if kind != "shell" and not any(
            event.get("event") == kind
            and same(argument, event.get("command", event.get("name", "")), event.get("bytes_sha256", ""))
            for event in mine
        ):
            yield f"no event of {kind} {argument[:40]!r}, which the server was asked for"
    if channel.start is None:
        return
    kind, argument = _argument(channel.start)
    if manifest.get("kind") != kind or not same(
        argument, manifest.get("command", ""), manifest.get("command_sha256", "")
    ):
        says = f"{manifest.get('kind')} {manifest.get('command', '')[:60]!r}"
        yield f"the manifest says {says}, the server accepted {kind} {argument[:60]!r}"
    if not starts:
        yield "no session.start"
    elif starts[-1]["kind"] != kind and not any(
        # The target refused what was requested first, and the audit says so.
        event.get("event") == "session.rejected" and event.get("rule") == "target"
        for event in mine
    ):
        yield f"session.start says {starts[-1]['kind']}, the server accepted {kind}"
    if ends and ends[-1]["kind"] != kind:
        yield f"session.end says {ends[-1]['kind']}, the server accepted {kind}"


#: Values of environment variables that a recording keeps whole, in bytes, and all of a session together.
WHOLE, ALL = 1000, 8000


def _environment(recording: Recording, channel: ServerChannel) -> Iterator[str]:
    if channel.start is None or sum(len(value) for _, value in channel.env) > ALL:
        return
    # Of one that is requested twice the header has the last value, and a marker the one before: the server
    # may have refused the last. One that comes after a refused start is a marker: the header is written then.
    texts = set(_texts(recording.lines[0]))
    markers = [line[2] for line in recording.lines[1:] if line[1] == "m" and line[2].startswith("env ")]
    for name, value in channel.env:
        if len(value) > WHOLE or texts & set(forms(value)):
            continue
        if not any(f"={form}" in marker for form in forms(value) for marker in markers):
            yield f"the recording does not have the value of the variable {name!r}"


def _argument(request: w.Request) -> tuple[str, bytes]:
    return request.name.decode(), b"" if request.name == b"shell" else w.Cursor(request.extra).text()


def _input(manifest: dict[str, Any], mine: list[dict[str, Any]], channel: ServerChannel) -> Iterator[str]:
    if channel.has_lied:
        # It may have told the proxy that a program runs, and ignores the input.
        return
    stdin = manifest.get("stdin") or {}
    given = bytes(channel.stdin)
    if stdin.get("bytes") != len(given):
        yield f"the manifest says {stdin.get('bytes')} bytes of input, the server was given {len(given)}"
    digest = stdin.get("sha256")
    if digest and digest != hashlib.sha256(given).hexdigest():
        yield f"the digest of the input is not that of the {len(given)} bytes that the server was given"
    withdrawn = any(
        event.get("event") == "message.dropped" and event["reason"].startswith("recorded, but not forwarded")
        for event in mine
    )
    if not digest and "pty" not in manifest and given and not withdrawn:
        yield "the input has no digest"
    for end in mine:
        if end.get("event") == "session.end":
            if end.get("stdin", 0) != len(given):
                yield f"session.end says {end.get('stdin')} bytes of input, the server was given {len(given)}"
            if digest and end.get("stdin_sha256") != digest:
                yield "session.end and the manifest have different digests"


def _output(
    recording: Recording, manifest: dict[str, Any], channel: ServerChannel, near: Any
) -> Iterator[str]:
    if near is None or channel.rude:
        return
    sent = {
        error: b"".join(data for which, data in channel.output if which is error) for error in (False, True)
    }
    for name, error, given in (("stdout", False, near.stdout), ("stderr", True, near.stderr)):
        size = (manifest.get(name) or {}).get("bytes", 0)
        if size > len(sent[error]):
            yield f"the manifest says {size} bytes of {name}, the server sent {len(sent[error])}"
        if error is False and not sent[error].startswith(given):
            yield f"the client was given other {name} than the server sent"
        if size < len(sent[error]) and not near.sent_close:
            yield f"the manifest says {size} bytes of {name}, the server sent {len(sent[error])}"
        if not error and size < len(given):
            yield f"the manifest says {size} bytes of {name}, the client was given {len(given)}"
    if near.sent_close:
        return
    if isinstance(channel.program, SftpServer):
        digest = (manifest.get("stdout") or {}).get("sha256", "")
        if sent[False] and digest != hashlib.sha256(sent[False]).hexdigest():
            yield f"the digest of the output is not that of the {len(sent[False])} bytes that the server sent"
        return
    shown = "".join(line[2] for line in recording.lines[1:] if line[1] == "o")
    decoders = {error: codecs.getincrementaldecoder("utf-8")("strict") for error in (False, True)}
    try:
        expected = "".join(decoders[error].decode(data) for error, data in channel.output)
    except UnicodeDecodeError:
        if not manifest["coverage"]["not_kept"]:
            yield "bytes of the output that are not UTF-8 are lost, and the coverage says nothing"
        return
    if shown != expected and channel.output:
        yield f"the cast shows {len(shown)} characters of output, the server sent {len(expected)}"


# --- files


def _files(manifest: dict[str, Any], channel: ServerChannel) -> Iterator[str]:
    program = channel.program
    if not isinstance(program, SftpServer):
        return
    files = manifest.get("files")
    if files is None:
        # A server that sends a reply too many has refused, for all that its client can know; then it is given
        # nothing.
        if channel.stdin or not channel.rude:
            yield "no account of the files of an sftp session"
        return
    if files.get("lost") or program.broken:
        if program.broken and not files.get("lost") and "files_lost" not in manifest["coverage"]["not_kept"]:
            yield "the server could not read the packets, and the account says nothing"
        return
    text = json.dumps(files)
    for operation, path, result in program.done:
        size, _, digest = result.partition(" ")
        listed = [entry for entry in _entries(files) if path in json.dumps(entry)]
        if not listed and not files.get("left_out"):
            yield f"the account does not have {operation} {path} {result}"
        elif digest and digest not in text and not any(entry.get("unhashed") for entry in listed):
            yield f"the account does not have the digest of {operation} {path} {size}"


def _entries(files: dict[str, Any]) -> list[dict[str, Any]]:
    lists = [value for value in files.values() if isinstance(value, list)]
    return [entry for value in lists for entry in value if isinstance(entry, dict)]


# --- forwards


def _forward(outcome: Outcome, channel: ServerChannel) -> Iterator[str]:
    ports = [event for event in outcome.events if event.get("event") == "port"]
    ends = [event for event in ports if event.get("action") == "close"]
    if channel.rude or not ends:
        return
    given = len(channel.stdin)
    counts = {value for event in ends for value in event.values() if isinstance(value, int)}
    if given and given not in counts:
        yield f"the server was given {given} bytes, the audit says {sorted(counts)}"
