"""The benchmarks can be asked for, judge rightly, and one of them really runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS, chosen, effort_of, parser
from bench.benchmark import Effort, Run
from bench.bulk import write_text
from bench.figures import (
    Bar,
    Figure,
    Outcome,
    at_least_ratio,
    at_most,
    at_most_more,
    at_most_ratio,
    missed_at_gate,
    percentile,
)
from bench.hostile import HOARDS, HOSTILE, ROWS, make_floods
from bench.hostile_client import KINDS
from bench.hostile_target import FLOODS
from bench.idle import IDLE
from bench.report import as_json, markdown, text
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


# --- what is asked for


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
        return {benchmark.name for benchmark in chosen(parser().parse_args(words))}

    every = {benchmark.name for benchmark in BENCHMARKS}
    assert names() == every - {"rekeys"}
    assert names("--full") == every
    assert names("rekeys", "echo") == {"rekeys", "echo"}
    assert names("--gate") == every - {"rekeys", "find"}


def test_reads_amounts() -> None:
    effort = effort_of(parser().parse_args(["--size", "5MB", "--rounds", "7"]))
    assert (effort.size, effort.long_size, effort.rounds) == (5_000_000, 5_000_000, 7)
    assert effort_of(parser().parse_args([])).size == 1_000_000_000
    assert effort_of(parser().parse_args(["--full"])).sessions[-1] == 5000
    assert effort_of(parser().parse_args(["--gate"])).size < 1_000_000_000


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
        (at_most_more(-2), "≤ + -2 MB/s", True),
        (at_most_more(-3), "≤ + -3 MB/s", False),
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


def test_computes_gate() -> None:
    good = figure((5,), (10,), gate=at_least_ratio(0.4))
    bad = figure((3,), (10,), gate=at_least_ratio(0.4))
    fast_machine_or_not = figure((1e9,), must=at_most(10))
    assert missed_at_gate([outcome(good, bad), outcome(fast_machine_or_not)]) == [(outcome(good, bad), bad)]


def test_judges_each_benchmark_once() -> None:
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


# --- what comes out


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
    assert shown["must"] == {"of": "ratio", "limit": 0.8, "at_least": True, "reached": True}
    assert shown["gate"] is None


def test_formats_markdown_report() -> None:
    page = markdown([outcome(figure((18,), (20,)))], {"CPU": "fast"}, {"ssh – proxy": "a cipher"}, "bench")
    for cell in (
        "| CPU | fast |",
        "| ssh – proxy | a cipher |",
        "## download",
        "| 18 MB/s | 20 MB/s |",
        "- a note",
    ):
        assert cell in page


# --- one for real


def test_writes_text_of_requested_size(tmp_path: Path) -> None:
    assert write_text(tmp_path / "text", 1_234_567).stat().st_size == 1_234_567


def test_runs_tiny_benchmark() -> None:
    done = bench("download", "--size", "1MB", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (shown,) = document["benchmarks"]
    (throughput,) = shown["figures"]
    assert len(throughput["ours"]) == len(throughput["yardstick"]) == 2
    assert throughput["ratio"] > 0
    assert set(document["legs"]) >= {"ssh – conchrec (outer)", "conchrec – target"}


async def test_runs_tiny_idle_sessions(stage: Stage) -> None:
    """With the light client and the light target, which nothing else uses."""
    lines: list[str] = []
    measured = await IDLE.run(Run(stage=stage, effort=Effort(sessions=(2, 3)), say=lines.append))
    assert [value.name for value in measured.figures][:2] == [
        "memory of a session, 2",
        "memory of a session, 3",
    ]
    assert lines[-1] == "3 sessions"


# --- floods


def test_names_existing_floods_in_rows() -> None:
    assert {row.kind for row in ROWS} <= set(KINDS)
    assert {row.target for row in ROWS if row.target} <= set(FLOODS)
    assert {hoard.kind for hoard in HOARDS} <= set(KINDS)
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert any(row.in_gate for row in ROWS)


async def test_measures_bystander_during_flood(stage: Stage) -> None:
    effort = Effort(only=("ping",), flood=0.2, flood_logins=1, gate=True)
    measured = await HOSTILE.run(Run(stage=stage, effort=effort, say=lambda text: None))
    assert [value.name for value in measured.figures] == [
        "pings: key, p99", "pings: key, p50", "pings: login", "pings: lock",
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
        await floods.begins(row)
        flood.close_input()
        assert int((await flood.wait()).text.rpartition("sent ")[2]) > 0, row
