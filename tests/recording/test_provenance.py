"""The provenance of a session: in the manifest, in the header, in the index, and after a crash."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.cli.recordings.find import listing, name_skipped, search
from conchrec.provenance import LONGEST, NOTHING_KNOWN, Provenance
from conchrec.recording.catalogue.index import Index
from conchrec.recording.catalogue.indexer import fill
from conchrec.recording.catalogue.library import Library
from conchrec.recording.catalogue.listing import Filter
from conchrec.recording.format.asciicast import Header
from conchrec.recording.format.manifest import Manifest
from tests.recording.recording_bench import Bench

FULL = Provenance(
    dialled="192.0.2.7:2222",
    host_key="SHA256:abc",
    trust="host CA",
    target_method="publickey",
    target_key="agent key",
    proxy_address="[2001:db8::1]:3023",
    method="publickey",
    key="SHA256:def",
    certificate="conchrec:joe serial 7",
    second_factor="totp",
    request="ABC123",
    approved_by="ann",
    approval_reason="disk on the database is full",
    approval_note="go on",
)
_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda some: st.lists(some) | st.dictionaries(
        st.sampled_from(["target", "login", "approval", "dialled", "key", "x"]), some
    )
)  # fmt: skip


def test_has_a_group_for_every_field() -> None:
    assert Provenance.parse(FULL.fields()) == FULL
    assert all(asdict(FULL).values())


@given(st.builds(Provenance, **dict.fromkeys(asdict(FULL), st.text(max_size=2 * LONGEST))))
def test_limits_length_of_fields(provenance: Provenance) -> None:
    again = Provenance.parse(json.loads(json.dumps(provenance.fields())))
    assert all(len(value) <= LONGEST for value in asdict(again).values())
    assert again == Provenance.parse(again.fields())


@given(_VALUES)
def test_parses_any_value(value: object) -> None:
    Provenance.parse(value)


def sealed(bench: Bench, provenance: Provenance = FULL, output: bytes = b"some output\r\n") -> str:
    recorder = bench.store().open(replace(bench.info(), provenance=provenance))
    recorder.start("shell")
    recorder.output(output)
    return bench.close(recorder).manifest.sid


def test_stands_in_manifest_and_header(bench: Bench) -> None:
    sid = sealed(bench)
    library = Library(bench.directory)
    path = library.path(sid)
    assert Manifest.parse(path.with_suffix(".json").read_bytes()).provenance == FULL
    header = Header.parse(path.read_bytes().splitlines()[0])
    assert Provenance.parse(header.ours["provenance"]) == FULL


def listed(bench: Bench, *, target: str | None = None, approved_by: str | None = None) -> list[str]:
    out = StringIO()
    wanted = Filter(target=target, approved_by=approved_by)
    listing(Library(bench.directory), out, as_json=True, wanted=wanted)
    return [item["sid"] for item in json.loads(out.getvalue())]


@pytest.mark.parametrize("indexed", [False, True])
def test_lists_by_machine_and_approver(bench: Bench, indexed: bool) -> None:
    sid, other = sealed(bench), sealed(bench, NOTHING_KNOWN)
    if indexed:
        fill(bench.directory)
    for target in ("192.0.2.7", "192.0.2.7:2222", "*:2222", "192.0.2.*"):
        assert listed(bench, target=target) == [sid]
    name = bench.info().target.host
    assert listed(bench, target=name) == listed(bench, target=f"{name}:22") == sorted([sid, other])
    assert listed(bench, target="elsewhere") == []
    assert listed(bench, approved_by="ann") == listed(bench, approved_by="a*") == [sid]
    assert listed(bench, approved_by="joe") == []


def searched(
    bench: Bench, *words: str, target: str | None = None, approved_by: str | None = None
) -> tuple[list[str], str]:
    out, errors = StringIO(), StringIO()
    wanted = Filter(target=target, approved_by=approved_by)
    search(Library(bench.directory), words, out, errors, wanted=wanted, limit=10, as_json=True)
    return [item["sid"] for item in json.loads(out.getvalue())], errors.getvalue()


def test_finds_approval_reason_by_search(bench: Bench) -> None:
    sid = sealed(bench)
    sealed(bench, NOTHING_KNOWN)
    fill(bench.directory)
    assert searched(bench, "disk on the database")[0] == [sid]
    assert searched(bench, "database", target="192.0.2.7", approved_by="ann")[0] == [sid]
    assert searched(bench, "output", target="192.0.2.7")[0] == [sid]
    assert searched(bench, "output", approved_by="tom")[0] == []


def test_skips_and_names_recording_that_fails_in_the_indexer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad, later = (sealed(bench) for _ in range(3))
    add = Index.add

    def broken(self: Index, sid: str) -> None:
        if sid == bad:
            raise MemoryError("too much")
        add(self, sid)

    monkeypatch.setattr(Index, "add", broken)
    (problem,) = fill(bench.directory)
    assert bad in problem and "MemoryError" in problem
    sids, errors = searched(bench, "output")
    assert sorted(sids) == sorted([good, later])
    assert f"{bad} is not in the index and was not searched: MemoryError" in errors
    assert fill(bench.directory) == []  # and is not read again
    assert bad in listed(bench)
    output = StringIO()
    name_skipped(Library(bench.directory), output)
    assert output.getvalue().splitlines() == [errors.strip()]


def test_skips_recording_that_ended_the_indexer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = sorted((sealed(bench), sealed(bench)))

    class Killed(BaseException):
        pass

    def killed(self: Index, sid: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Index, "add", killed)
        with pytest.raises(Killed):
            fill(bench.directory)
    fill(bench.directory)
    sids, errors = searched(bench, "output")
    assert sids == [good]
    assert f"{bad} is not in the index and was not searched: the indexer stopped" in errors


def test_limits_index_entry_to_the_size_of_its_recording(bench: Bench) -> None:
    hostile = (b"\x1b[4000Gx\r\n" + b"\x1b[999b\x1b[4000@\t\t\ty\x1b[H") * 2000
    sid = sealed(bench, output=hostile)
    fill(bench.directory)
    size = Library(bench.directory).path(sid).stat().st_size
    assert (bench.directory / "index.sqlite").stat().st_size < 2 * size + 256 * 1024
