"""``python -m fuzz channels [--cases N] [--seed S] [--case I]``: random cases, checked by the oracle."""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from fuzz.channels.oracle import check
from fuzz.channels.runner import Stacks, run
from fuzz.channels.script import VARIANTS, Case, make_case, shown

CASES = 100_000
#: How often a long run says how far it is, in cases.
REPORT_EVERY = 5_000
#: Runs that shortening a case may take.
ATTEMPTS = 150


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m fuzz channels``; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz channels",
        description="channel messages from a client through the proxy to an instrumented server, "
        "and the record of them compared with the server's own account",
    )
    parser.add_argument("--cases", type=int, default=CASES, metavar="N", help=f"how many ({CASES})")
    parser.add_argument("--seed", type=int, help="makes the same cases again (default: random)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="the number of the first case (0)")
    parser.add_argument("--case", type=int, metavar="I", help="only this case, and print it")
    parser.add_argument("--only", metavar="REGEX", default="", help="only problems that match")
    parser.add_argument("--keep-going", action="store_true", help="count all failures instead of stopping")
    args = parser.parse_args(arguments)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    stacks = Stacks(args.only)
    try:
        if args.case is not None:
            return _run_case(stacks, seed, args.case)
        return _many(stacks, seed, args.first, args.cases, keep_going=args.keep_going)
    finally:
        stacks.close()


def problems(stacks: Stacks, case: Case) -> list[str]:
    """Everything that is wrong after this case."""
    try:
        texts = check(run(stacks[case.variant], case), honest=case.honest)
    except Exception:
        texts = ["raised: " + traceback.format_exc()]
    return [text for text in texts if re.search(stacks.only, text)]


def _many(stacks: Stacks, seed: int, first: int, count: int, *, keep_going: bool) -> int:
    print(f"channels: seed {seed}", flush=True)
    begin = time.monotonic()
    kinds: Counter[str] = Counter()
    examples: dict[str, int] = {}
    for number in range(first, first + count):
        texts = problems(stacks, make_case(seed, number))
        if texts and not keep_going:
            return _report(stacks, seed, number)
        for kind in {_kind(text) for text in texts}:
            kinds[kind] += 1
            if kind not in examples:
                examples[kind] = number
                print(f"case {number}: {kind}", flush=True)
        if (number + 1) % REPORT_EVERY == 0:
            print(f"{number + 1 - first} cases, {time.monotonic() - begin:.0f} s", flush=True)
        if sys.stderr.isatty() and number % 50 == 0:
            print(f"\rchannels {number - first:>10} of {count}", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - begin
    for kind, times in kinds.most_common():
        print(f"{times:>6}  case {examples[kind]:>6}  {kind}")
    print(f"channels: {count} cases, {seconds:.1f} s ({count / max(seconds, 1e-9):.0f}/s), seed {seed}, "
          f"{sum(kinds.values())} failures", flush=True)  # fmt: skip
    return 1 if kinds else 0


def _run_case(stacks: Stacks, seed: int, number: int) -> int:
    case = make_case(seed, number)
    texts = problems(stacks, case)
    if texts:
        return _report(stacks, seed, number)
    print(describe(case))
    print(f"case {number} of seed {seed}: nothing is wrong")
    return 0


def _report(stacks: Stacks, seed: int, number: int) -> int:
    case = make_case(seed, number)
    texts = problems(stacks, case)
    short = shortened(stacks, case, {_kind(text) for text in texts})
    print(f"\ncase {number} of seed {seed}, shortened from {len(case.steps)} steps:\n{describe(short)}")
    for text in problems(stacks, short):
        print(f"  WRONG: {text}")
    print(f"python -m fuzz channels --seed {seed} --case {number}", flush=True)
    return 1


def shortened(
    stacks: Stacks, case: Case, kinds: set[str], *, kind: Callable[[str], str] | None = None
) -> Case:
    """As few of the steps as still break one of the same rules (``kind`` of a problem)."""
    rule = kind or _kind
    attempts = 0
    size = max(len(case.steps) // 2, 1)
    while size and attempts < ATTEMPTS:
        at = 0
        while at < len(case.steps) and attempts < ATTEMPTS:
            attempts += 1
            without = replace(case, steps=case.steps[:at] + case.steps[at + size :])
            if kinds & {rule(text) for text in problems(stacks, without)}:
                case = without
            else:
                at += size
        size //= 2
    return case


def describe(case: Case) -> str:
    """Return a case as text, step by step."""
    lines = [f"  {VARIANTS[case.variant].name}, {case.profile}"]
    lines += [f"  manners of channel {number}: {manners}" for number, manners in enumerate(case.manners)]
    return "\n".join(lines + [f"  {shown(step)}" for step in case.steps])


def _kind(problem: str) -> str:
    """The rule that is broken, without the values of this case."""
    if problem.startswith("raised"):
        return problem.strip().splitlines()[-1][:120]
    short = re.sub(r"b?('[^']*'|\"[^\"]*\")|\d+", "…", problem)
    return re.sub(r" b?['\"].*|…[^ ]*$", "", short)[:120]
