"""``python -m bench [NAME …]``: run all benchmarks, or those that are named.

The exit status is 1 if a benchmark failed, and with ``--gate`` also if a figure misses its bar.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import CancelledError

from bench import (
    bulk,
    commands,
    echo,
    find,
    hostile,
    idle,
    logins,
    machine,
    rekeys,
    report,
    results,
    sftp_requests,
    slow,
)
from bench.benchmark import FULL, QUICK, Benchmark, Effort, Run
from bench.figures import Outcome, missed_at_gate
from bench.legs import negotiated
from conchrec.yaml_cursor import parse_size
from tests.support.program import run_program
from tests.support.stage import Stage

BENCHMARKS: tuple[Benchmark, ...] = (
    bulk.DOWNLOAD,
    bulk.UPLOAD,
    bulk.SCP,
    bulk.SFTP,
    sftp_requests.SFTP_REQUESTS,
    logins.PROMPTS,
    logins.CONNECTIONS,
    logins.POST_QUANTUM,
    echo.ECHO,
    idle.IDLE,
    slow.SLOW,
    rekeys.REKEYS,
    commands.COMMANDS,
    find.FIND,
    hostile.HOSTILE,
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description="Compare conchrec with ssh -J through a stock sshd."
    )
    made.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks to run (default: all that are not marked --full)"
    )
    made.add_argument("--list", action="store_true", help="list the benchmarks")
    made.add_argument("--rounds", type=int, metavar="N", help="rounds of each benchmark (default: 7)")
    made.add_argument(
        "--size", type=parse_size, metavar="SIZE", help="size of each transfer: 1GB, 64MiB (default: 1GB)"
    )
    made.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KIND",
        help="for hostile: run only floods of this KIND; may be repeated",
    )
    made.add_argument(
        "--full", action="store_true", help="also run 5,000 sessions, and 20 GB in one connection"
    )
    made.add_argument(
        "--gate", action="store_true", help="small sizes; exit with 1 if a figure misses the bar for CI"
    )
    made.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    made.add_argument(
        "--results",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="FILE",
        help=f"write the results to FILE (default: {RESULTS.name}); sections of other benchmarks are kept",
    )
    return made


def select_effort(args: argparse.Namespace) -> Effort:
    """Return the sizes that the arguments select."""
    effort = QUICK if args.gate else FULL if args.full else Effort()
    if args.only:
        effort = replace(effort, only=tuple(args.only))
    if args.size is not None:
        effort = effort.with_size(args.size)
    return effort if args.rounds is None else replace(effort, rounds=args.rounds)


def select_benchmarks(args: argparse.Namespace) -> list[Benchmark]:
    """Return the benchmarks to run, in the order of the list."""
    if args.names:
        return [benchmark for benchmark in BENCHMARKS if benchmark.name in args.names]
    long = args.full or args.gate
    return [benchmark for benchmark in BENCHMARKS if long or not benchmark.only_named]


class Progress:
    """A line on the terminal that shows the progress; nothing if stderr is not a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Replace the line."""
        if self._shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


async def measure(benchmark: Benchmark, effort: Effort, progress: Progress) -> Outcome:
    """Run a benchmark in a directory and with servers of its own, and end these."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conchrec-bench-") as name:
        stage = Stage(directory=Path(name))
        try:
            run = Run(stage=stage, effort=effort, say=lambda text: progress.say(f"{benchmark.name}: {text}"))
            measured = await benchmark.run(run)
        finally:
            progress.say("")
            await stage.close()
    return Outcome(
        benchmark=benchmark.name,
        about=benchmark.about,
        figures=tuple(measured.figures),
        notes=tuple(measured.notes),
        seconds=time.monotonic() - began,
    )


async def legs() -> dict[str, str]:
    """Return the algorithms that the connections of a scene negotiate."""
    with tempfile.TemporaryDirectory(prefix="conchrec-bench-") as name:
        stage = Stage(directory=Path(name))
        try:
            return await negotiated(stage)
        finally:
            await stage.close()


def write_results(
    path: Path,
    outcomes: Sequence[Outcome],
    described: Mapping[str, str],
    agreed: Mapping[str, str],
    command: str,
    *,
    rows: bool = False,
) -> None:
    """Replace the sections of these benchmarks in the file; ``rows``: only the rows of these floods."""
    sections = results.read_page(path.read_text()) if path.exists() else {}
    sections[results.LEGS] = results.legs_section(agreed, described, command)
    for outcome in outcomes:
        section, old = results.outcome_section(outcome, described, command), sections.get(outcome.benchmark)
        sections[outcome.benchmark] = old.with_rows(section) if old and rows else section
    names = [results.LEGS, *(benchmark.name for benchmark in BENCHMARKS)]
    path.write_text(results.make_page(sections, names))


async def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the chosen benchmarks and print the report; return the exit status."""
    progress, effort = Progress(), select_effort(args)
    described = await machine.describe()
    agreed = await legs() if args.json or args.results else {}
    outcomes: list[Outcome] = []
    broken = False
    for benchmark in select_benchmarks(args):
        try:
            outcome = await measure(benchmark, effort, progress)
        except CancelledError:
            raise
        except Exception:
            # The other benchmarks run anyway.
            traceback.print_exc()
            broken = True
            continue
        outcomes.append(outcome)
        print(report.text(outcome), file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(report.as_json(outcomes, described, agreed))
    if args.results:
        command = shlex.join(["python", "-m", "bench", *words])
        write_results(args.results, outcomes, described, agreed, command, rows=bool(args.only))
    missed = missed_at_gate(outcomes) if args.gate else []
    for outcome, figure in missed:
        assert figure.gate is not None
        print(
            f"missed: {outcome.benchmark}, {figure.name}: {figure.gate.text(figure.unit)}, in"
            f" {figure.gate.missed_rounds(figure)} of {len(figure.ours)} rounds",
            file=sys.stderr,
        )
    return 1 if broken or missed else 0


def main(words: Sequence[str]) -> int:
    """Run benchmarks by these arguments; return the exit status."""
    words_parser = parser()
    args = words_parser.parse_args(words)
    known = {benchmark.name for benchmark in BENCHMARKS}
    if unknown := set(args.names) - known:
        words_parser.error(f"no such benchmark: {', '.join(sorted(unknown))} (see --list)")
    if args.rounds is not None and args.rounds < 1:
        words_parser.error("--rounds: at least one")
    if args.size is not None and args.size < 1:
        words_parser.error("--size: at least one byte")
    if args.list:
        for benchmark in BENCHMARKS:
            print(f"{benchmark.name:<13}{benchmark.about}{' (--full)' if benchmark.only_named else ''}")
        return 0
    return run_program(lambda: run(args, words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
