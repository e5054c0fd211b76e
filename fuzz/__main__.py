"""``python -m fuzz [NAME …] [--runs N] [--seed S]``: all fuzzers, or those that are named.

``python -m fuzz channels`` is another kind: see ``fuzz.channels``.

Ends with 1 where something was found, after printing what has to be run to see it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback
from collections.abc import Sequence

from twisted.logger import globalLogBeginner

from fuzz import guided
from fuzz.channels import command
from fuzz.harness import BugFound, fuzz, replay
from fuzz.limits import Broken, Stuck
from fuzz.target import Target
from fuzz.targets import TARGETS

RUNS = 1_000_000


def main(arguments: Sequence[str]) -> int:
    """Run the fuzzer by these arguments; return the exit status."""
    if arguments and arguments[0] == "channels":
        _discard_logs()
        return command.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="fuzz conchrec's parsers")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, where none is named")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"inputs for each ({RUNS})")
    parser.add_argument("--seed", type=int, help="makes the same inputs again (default: another each time)")
    parser.add_argument("--input", metavar="HEX", help="one input, for the one fuzzer that is named")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; needs atheris")
    parser.add_argument("--list", action="store_true", help="say which fuzzers there are")
    args = parser.parse_args(arguments)
    known = {target.name: target for target in TARGETS}
    if unknown := set(args.names) - set(known):
        parser.error(f"no such fuzzer: {', '.join(sorted(unknown))} (see --list)")
    if args.list:
        for target in TARGETS:
            print(f"{target.name:<14}{target.about}")
        return 0
    targets = [known[name] for name in args.names] or list(TARGETS)
    _discard_logs()
    if args.input is not None or args.atheris:
        if len(args.names) != 1:
            parser.error("--input and --atheris are for one fuzzer")
        if args.atheris:
            return guided.run(targets[0], args.runs)
        return _replayed(targets[0], args.input)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    # All of them, also after one has found something.
    return max([_fuzzed(target, args.runs, seed) for target in targets])


def _discard_logs() -> None:
    """Without this, Twisted keeps the last 65,536 events in memory for the observers to come."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def _fuzzed(target: Target, runs: int, seed: int) -> int:
    show = sys.stderr.isatty()

    def progress(done: int) -> None:
        if show:
            print(f"\r{target.name:<14}{done:>10} of {runs}", end="", file=sys.stderr, flush=True)

    again = f"python -m fuzz {target.name} --runs {runs} --seed {seed}"
    try:
        result = fuzz(target, runs=runs, seed=seed, progress=progress)
    except BugFound as bug:
        cause = bug.__cause__
        assert cause is not None
        print(f"\n{''.join(traceback.format_exception(cause))}\n{bug}, seed {seed}\n")
        print(f"python -m fuzz {target.name} --input {bug.data.hex()}\n{again}", flush=True)
        return 1
    except Broken as broken:
        print(f"\n{target.name}: {broken}\n{again}", flush=True)
        return 1
    rate = result.inputs / max(result.seconds, 1e-9)
    start = "\r" if show else ""
    print(
        f"{start}{target.name:<14}{result.inputs:>10} inputs, {result.sessions} sessions,"
        f" {result.seconds:.1f} s ({rate:.0f}/s), seed {seed}",
        flush=True,
    )
    return 0


def _replayed(target: Target, data: str) -> int:
    try:
        replay(target, bytes.fromhex(data))
    except (Exception, Stuck):
        traceback.print_exc()
        return 1
    print(f"{target.name}: nothing happens")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
