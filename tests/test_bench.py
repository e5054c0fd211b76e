"""Arguments, figures and reports of the benchmarks, and runs of some of them at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS, RESULTS, parser, select_benchmarks, select_effort, write_results
from bench.benchmark import Effort, Run
from bench.bulk import write_text
from bench.figures import (
    Bar,
    Figure,
    Outcome,
    at_least_ratio,
    at_most,
    at_most_difference,
    at_most_ratio,
    missed_at_gate,
    percentile,
)
from bench.hostile import HOSTILE, MEMORY_FLOODS, ROWS, make_floods
from bench.hostile_client import KINDS
from bench.hostile_target import FLOODS
from bench.idle import IDLE
from bench.report import as_json, text
from bench.results import Section, legs_section, make_page, outcome_section, read_page
from tests.support.stage import Stage
from tests.test_layers import ROOT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def figure(
    ours: tuple[float, ...],
    yardstick: tuple[float, ...] = (),
    must: Bar | None = None,
    gate: Bar | None = None,
) -> Figure:
    return Figure(name="throughput", unit="MB/s", ours=ours, yardstick=yardstick, must=must, gate=gate)


# --- arguments


def test_lists_benchmarks() -> None:
    done = bench("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        benchmark.name for benchmark in BENCHMARKS
    ]


@pytest.mark.parametrize("wrong", [["nonsense"], ["--rounds", "0"], ["--size", "1"], ["--size", "0"]])
def test_rejects_invalid_arguments(wrong: list[str]) -> None:
    assert bench(*wrong).returncode == 2


def test_selects_benchmarks() -> None:
    def names(*words: str) -> set[str]:
        return {benchmark.name for benchmark in select_benchmarks(parser().parse_args(words))}

    every = {benchmark.name for benchmark in BENCHMARKS}
    assert names() == every - {"rekeys"}
    assert names("--full") == every
    assert names("rekeys", "echo") == {"rekeys", "echo"}
    assert names("--gate") == every


def test_reads_amounts() -> None:
    effort = select_effort(parser().parse_args(["--size", "5MB", "--rounds", "7"]))
    assert (effort.size, effort.long_size, effort.rounds) == (5_000_000, 5_000_000, 7)
    assert select_effort(parser().parse_args([])).size == 1_000_000_000
    assert select_effort(parser().parse_args(["--full"])).sessions[-1] == 5000
    assert select_effort(parser().parse_args(["--gate"])).size < 1_000_000_000


# --- arithmetic


def test_computes_medians_and_ratio() -> None:
    result = figure((10, 30, 90), (20, 20, 30))
    assert (result.median, result.yardstick_median, result.ratio, result.spread) == (30, 20, 1.5, (0.5, 3))
    alone = figure((1, 2, 3))
    assert (alone.median, alone.yardstick_median, alone.ratio, alone.spread) == (2, None, None, None)
    assert figure((0,), (0,)).ratio is None


def test_computes_percentiles() -> None:
    samples = [float(number) for number in range(1, 101)]
    assert (percentile(samples, 50), percentile(samples, 99), percentile([7], 99)) == (50, 99, 7)


@pytest.mark.parametrize(
    ("bar", "shown", "reached"),
    [
        (at_least_ratio(0.8), "≥ 0.8 ×", True),
        (at_least_ratio(1), "≥ 1 ×", False),
        (at_most_ratio(0.9), "≤ 0.9 ×", True),
        (at_most_ratio(0.8), "≤ 0.8 ×", False),
        (at_most_difference(-2), "≤ + -2 MB/s", True),
        (at_most_difference(-3), "≤ + -3 MB/s", False),
        (at_most(18), "≤ 18 MB/s", True),
        (at_most(17), "≤ 17 MB/s", False),
    ],
)
def test_judges_bars(bar: Bar, shown: str, reached: bool) -> None:
    result = figure((18,), (20,))
    assert (bar.text(result.unit), bar.reached(result)) == (shown, reached)


def test_fails_ratio_without_yardstick() -> None:
    assert not at_least_ratio(0).reached(figure((1,)))


def outcome(*figures: Figure) -> Outcome:
    return Outcome(benchmark="download", about="a download", figures=figures, notes=("a note",), seconds=1)


@pytest.mark.parametrize(
    ("missed", "rounds", "fails"),
    [(7, 7, True), (6, 7, True), (5, 7, False), (0, 7, False), (1, 1, True), (0, 1, False), (1, 2, False)],
)
def test_fails_gate_if_six_of_seven_rounds_miss(missed: int, rounds: int, fails: bool) -> None:
    """The median of five bad rounds would be bad, too."""
    ours = (3.0,) * missed + (4.0,) * (rounds - missed)
    judged = figure(ours, (10.0,) * rounds, gate=at_least_ratio(0.4))
    assert judged.misses_gate is fails
    assert judged.gate is not None
    assert judged.gate.missed_rounds(judged) == missed


def test_compares_each_round_with_its_own_yardstick() -> None:
    """A slow machine slows both. The medians, 60 and 40, would miss the bar."""
    judged = figure((10, 60, 110), (10, 40, 100), gate=at_most_ratio(1.2))
    assert judged.gate is not None
    assert judged.gate.missed_rounds(judged) == 1
    assert not judged.gate.reached(judged)
    assert not judged.misses_gate


def test_counts_missing_yardstick_as_missed_round() -> None:
    assert figure((1, 1), (0, 0), gate=at_most_ratio(9)).misses_gate
    assert figure((1, 1), gate=at_most_difference(9)).misses_gate


def test_computes_gate() -> None:
    good = figure((5,), (10,), gate=at_least_ratio(0.4))
    bad = figure((3,), (10,), gate=at_least_ratio(0.4))
    without_gate = figure((1e9,), must=at_most(10))
    assert missed_at_gate([outcome(good, bad), outcome(without_gate)]) == [(outcome(good, bad), bad)]


def test_judges_each_benchmark_once() -> None:
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


# --- reports


def test_formats_text_report() -> None:
    shown = text(outcome(figure((18,), (20,), at_least_ratio(0.8)), figure((1,), (), at_most(0))))
    assert "18 MB/s" in shown
    assert "0.90" in shown
    assert "≥ 0.8 × ✓" in shown
    assert "≤ 0 MB/s ✗" in shown
    assert "a note" in shown


def test_formats_json_report() -> None:
    document = json.loads(
        as_json([outcome(figure((18, 19, 17), (20, 20, 20), at_least_ratio(0.8)))], {"CPU": "fast"}, {})
    )
    assert document["machine"] == {"CPU": "fast"}
    (shown,) = document["benchmarks"][0]["figures"]
    assert (shown["median"], shown["yardstick_median"], shown["ratio"]) == (18, 20, 0.9)
    assert shown["must"] == {
        "of": "ratio",
        "limit": 0.8,
        "at_least": True,
        "reached": True,
        "missed_rounds": 0,
    }
    assert shown["gate"] is None


MACHINE = {"date": "2026-01-02", "CPU": "fast"}


def test_formats_results() -> None:
    page = make_page(
        {
            "download": outcome_section(outcome(figure((18,), (20,))), MACHINE, "python -m bench download"),
            "negotiated": legs_section({"ssh – proxy": "a cipher"}, MACHINE, "python -m bench echo"),
        },
        ["negotiated", "download"],
    )
    for line in (
        "A download.",
        "Measured by `python -m bench download`; date: 2026-01-02; CPU: fast",
        "| ssh – proxy | a cipher |",
        "| throughput | 18 MB/s | 20 MB/s | 0.90 | 0.90 – 0.90 | – | – |",
        "- a note",
    ):
        assert line in page.splitlines()
    assert page.index("## negotiated") < page.index("## download")


def test_reads_results_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    write_results(path, [outcome(figure((18,), (20,)))], MACHINE, {"ssh – proxy": "a cipher"}, "bench")
    page = path.read_text()
    order = ["negotiated", "download"]
    assert list(read_page(page)) == order
    assert make_page(read_page(page), order) == page


def test_keeps_sections_of_other_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"

    def measure(name: str, value: float, command: str) -> None:
        done = replace(outcome(figure((value,), (20,))), benchmark=name)
        write_results(path, [done], MACHINE, {}, command)

    measure("download", 18, "bench download")
    measure("echo", 17, "bench echo")
    measure("upload", 16, "bench upload")
    measure("echo", 15, "bench echo --rounds 3")
    path.write_text(path.read_text() + "\n## former\n\nA benchmark that no longer exists.\n")
    measure("upload", 14, "bench upload --rounds 3")
    assert list(read_page(path.read_text())) == ["negotiated", "download", "upload", "echo"]
    for name, value, command in (
        ("download", 18, "bench download"),
        ("upload", 14, "bench upload --rounds 3"),
        ("echo", 15, "bench echo --rounds 3"),
    ):
        text_of_section = read_page(path.read_text())[name].text
        assert f"| {value} MB/s |" in text_of_section
        assert f"`{command}`" in text_of_section


def floods(value: float, *names: str, command: str = "bench hostile") -> Section:
    figures = [
        replace(figure((value,)), name=f"{name}: {what}") for name in names for what in ("keystroke", "login")
    ]
    notes = ("how it was measured", *(f"{name}, conchrec: {value:g} a second" for name in names))
    done = Outcome(benchmark="hostile", about="floods", figures=tuple(figures), notes=notes)
    return outcome_section(done, MACHINE, command)


def test_replaces_rows_of_some_floods() -> None:
    again = "bench hostile --only ping"
    merged = floods(1, "env", "pings", "scp").with_rows(floods(2, "pings", "zlib", command=again))
    assert [line.split(" | ")[:2] for line in merged.table[2:]] == [
        ["| env: keystroke", "1 MB/s"],
        ["| env: login", "1 MB/s"],
        ["| pings: keystroke", "2 MB/s"],
        ["| pings: login", "2 MB/s"],
        ["| scp: keystroke", "1 MB/s"],
        ["| scp: login", "1 MB/s"],
        ["| zlib: keystroke", "2 MB/s"],
        ["| zlib: login", "2 MB/s"],
    ]
    assert merged.notes == (
        "- how it was measured",
        "- env, conchrec: 1 a second",
        "- pings, conchrec: 2 a second",
        "- scp, conchrec: 1 a second",
        "- zlib, conchrec: 2 a second",
    )
    assert merged.paragraphs[1].startswith("Measured by `bench hostile`;")
    assert merged.paragraphs[2].startswith(f"Measured again (pings, zlib): `{again}`;")


def test_replaces_rows_of_floods_that_failed() -> None:
    failed = replace(floods(1, "pings"), table=(*floods(1, "pings").table[:2], "| pings: failed | 1 rows |"))
    merged = failed.with_rows(floods(2, "pings"))
    assert [line.split(" | ")[0] for line in merged.table[2:]] == ["| pings: keystroke", "| pings: login"]


def test_names_latest_measurement_of_a_row_once() -> None:
    once = floods(1, "env", "pings").with_rows(floods(2, "pings", command="first"))
    twice = once.with_rows(floods(3, "pings", command="second"))
    assert len(twice.paragraphs) == 3
    assert "`second`" in twice.paragraphs[2]


def test_reads_results_of_the_repository() -> None:
    """A later run keeps all that is there."""
    page = RESULTS.read_text()
    assert set(read_page(page)) <= {"negotiated", *(benchmark.name for benchmark in BENCHMARKS)}


# --- runs


def test_writes_text_of_requested_size(tmp_path: Path) -> None:
    assert write_text(tmp_path / "text", 1_234_567).stat().st_size == 1_234_567


def test_runs_tiny_benchmark() -> None:
    done = bench("download", "--size", "1MB", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (shown,) = document["benchmarks"]
    figures = {value["name"]: value for value in shown["figures"]}
    assert set(figures) >= {"download", "download, AES-GCM", "CPU, download, ChaCha20"}
    throughput = figures["download, ChaCha20"]
    assert len(throughput["ours"]) == len(throughput["yardstick"]) == 2
    assert throughput["ratio"] > 0
    assert set(document["legs"]) >= {"ssh – conchrec (outer)", "conchrec – target"}


async def test_runs_tiny_idle_sessions(stage: Stage) -> None:
    """With the light client and the light target, which no other test uses."""
    lines: list[str] = []
    measured = await IDLE.run(Run(stage=stage, effort=Effort(sessions=(2, 3)), say=lines.append))
    assert [value.name for value in measured.figures][:2] == [
        "memory of a session, 2",
        "memory of a session, 3",
    ]
    assert lines[-3:] == ["3 sessions", "no sessions", "3 sessions again"]


# --- floods


def test_names_existing_floods_in_rows() -> None:
    assert {row.kind for row in ROWS} <= set(KINDS)
    assert {row.target for row in ROWS if row.target} <= set(FLOODS)
    assert {memory_flood.kind for memory_flood in MEMORY_FLOODS} <= set(KINDS)
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert any(row.in_gate for row in ROWS)


async def test_measures_bystander_during_flood(stage: Stage) -> None:
    effort = Effort(only=("ping",), flood=0.2, flood_logins=1, gate=True)
    measured = await HOSTILE.run(Run(stage=stage, effort=effort, say=lambda text: None))
    assert [value.name for value in measured.figures] == [
        "pings: keystroke, p99", "pings: keystroke, p50", "pings: login", "pings: lock",
    ]  # fmt: skip
    p99, p50, login, lock = measured.figures
    assert p99.must is not None and login.must is not None and lock.must is not None
    assert p50.gate is not None and login.gate is not None


#: One for each way in which floods are made.
FLOOD_KINDS = (
    "dh-group16", "krl", "ignore-early", "rekeys", "screen", "sessions", "controls", "sftp", "offers", "held",
)  # fmt: skip


async def test_sends_flood(stage: Stage) -> None:
    floods = await make_floods(Run(stage=stage, effort=Effort(), say=lambda text: None))
    for row in [row for row in ROWS if row.kind in FLOOD_KINDS or row.target in ("rekeys", "ignore")]:
        flood = floods.start(replace(row, count=1), floods.scene.ours)
        await flood.says("flooding\n")
        await floods.target_floods(row)
        flood.close_input()
        assert int((await flood.wait()).text.rpartition("sent ")[2]) > 0, row
