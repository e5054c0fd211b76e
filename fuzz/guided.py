"""The same targets, guided by coverage, where atheris is installed; it has wheels for some Pythons only."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
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
    corpus = Path(tempfile.mkdtemp(prefix=f"conchrec-fuzz-{target.name}-"))
    for number, entry in enumerate(target.corpus()):
        (corpus / str(number)).write_bytes(entry)
    print(f"{target.name}: what reaches something new is kept in {corpus}", flush=True)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={runs}", str(corpus)], lambda data: replay(target, data))
    atheris.Fuzz()
    return 0
