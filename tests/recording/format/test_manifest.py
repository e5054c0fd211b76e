from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError
from conchrec.recording.format.json_fields import indented
from conchrec.recording.format.manifest import Manifest, Pty, Status, StreamTotals
from conchrec.recording.format.transfer_account import Files, Operation

START = datetime(2026, 11, 23, 12, 0, 0, 250000, tzinfo=timezone.utc)

streams = st.none() | st.builds(
    StreamTotals, size=st.integers(0, 2**63), sha256=st.sampled_from(["", "ab" * 32])
)
any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"]))
counts = st.integers(0, 2**63)
operations = st.builds(
    Operation,
    operation=st.sampled_from(["read", "write", "rename"]),
    path=any_text,
    other=any_text,
    name=any_text,
    detail=any_text,
    size=st.none() | counts,
    sha256=st.just("ef" * 32),
    result=any_text,
    duration=st.sampled_from([0.0, 0.125, 3600.001]),
) | st.builds(Operation, operation=st.just("write"), path=any_text, size=counts, unhashed=any_text)
files = st.builds(
    Files,
    by=st.sampled_from(["sftp", "scp", "rsync"]),
    sent=counts,
    received=counts,
    read=counts,
    read_bytes=counts,
    written=counts,
    written_bytes=counts,
    changes=counts,
    failed=counts,
    lost=any_text,
    operations=st.lists(operations).map(tuple),
)
manifests = st.builds(
    Manifest,
    sid=st.just("06c3r8kqtk52k8qyw3wy3h56q1"),
    status=st.sampled_from(Status),
    reason=any_text,
    started=st.just(START),
    ended=st.timedeltas(timedelta(0), timedelta(days=400)).map(START.__add__),
    cast_size=st.integers(0, 2**63),
    cast_sha256=st.just("cd" * 32),
    user=any_text,
    login=any_text,
    target=any_text,
    roles=st.lists(any_text).map(tuple),
    kind=st.sampled_from(["", "shell", "exec", "subsystem"]),
    command=any_text,
    pty=st.none() | st.builds(Pty, term=any_text, columns=st.integers(0), rows=st.integers(0)),
    exit_status=st.none() | st.integers(0, 2**32 - 1),
    stdout=streams,
    stderr=streams,
    stdin=streams,
    files=st.none() | files,
)


@given(manifests)
def test_reads_manifest_as_it_was_written(manifest: Manifest) -> None:
    text = manifest.encode()
    assert Manifest.parse(text) == manifest
    assert text.isascii() and not any((byte < 32 and byte != 10) or byte == 127 for byte in text)
    assert b"null" not in text.replace(b'null"', b"")


def test_has_no_negative_duration() -> None:
    manifest = Manifest(
        sid="", status=Status.COMPLETE, reason="", started=START, ended=START - timedelta(hours=1),
        cast_size=0, cast_sha256="",
    )  # fmt: skip
    assert manifest.duration == 0


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"5", b'{"version": 2}', b"\xff", b'{"version": 1, "sid": 5}', b"[" * 100_000]
)
def test_rejects_invalid_manifest(text: bytes) -> None:
    with pytest.raises(RecordingError):
        Manifest.parse(text)


@pytest.mark.parametrize(
    "moment",
    ["", "2026-11-23", "2026-11-23T12:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
)
def test_rejects_invalid_times(moment: str) -> None:
    """Without a zone, or out of range in UTC."""
    manifest = Manifest(
        sid="", status=Status.COMPLETE, reason="", started=START, ended=START, cast_size=0, cast_sha256=""
    )
    whole = manifest.encode()
    written = b"2026-11-23T12:00:00.250000Z"
    assert whole.count(written) == 2
    with pytest.raises(RecordingError):
        Manifest.parse(whole.replace(written, moment.encode(), 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(JSON)
def test_indents_as_json_does(value: object) -> None:
    assert indented(value) == json.dumps(value, indent=1)
