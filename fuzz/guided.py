"""The same targets, guided by coverage, where atheris is installed; it has wheels for some Pythons only."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from fuzz.harness import replay
from fuzz.target import Target


def run(target: Target, runs: int) -> int:
    """Hand over to libFuzzer, which ends the process itself; 2 where there is no atheris."""
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={runs}"], lambda data: replay(target, data))
    atheris.Fuzz()
    return 0
