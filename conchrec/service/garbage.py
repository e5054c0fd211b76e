"""When the garbage collector of the interpreter runs, and how much it visits at once.

Nothing else runs during a collection. A full one visits every object that can contain others: all modules
(65 ms), and 430 objects for each session, which took 0.9 s for 1,000 sessions and several seconds for 5,000.
What has ended leaves no garbage (``docs/architecture.md``), so the collector need not visit live sessions
again and again: what is left after a full collection is excluded from later ones (``gc.freeze``), and a full
collection comes sooner, when little is new. An excluded object is freed as usual when nothing refers to it.
If it is in a cycle of references, it waits for ``collect_all``.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

_OLDEST = 2
"""The generation that only a full collection visits."""
_FULL_AFTER = 2
"""A full collection follows after more collections of the generation before than this: about 20,000 objects
are new then."""


def bound_collections() -> None:
    """Visit each object in one full collection only, from now on. Called once, after the set-up."""
    gc.callbacks.append(_collected)
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_AFTER)
    gc.collect()


def _collected(phase: str, info: Mapping[str, int]) -> None:
    """Exclude what is left after a full collection. Called by the collector."""
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()


def collect_all() -> None:
    """Collect garbage among all objects, also the excluded ones. Only while nobody is connected."""
    gc.unfreeze()
    gc.collect()


def collect_new() -> None:
    """Collect garbage among new objects, in some milliseconds.

    Each call in a thread leaves a function of Twisted that refers to itself, and an idle interpreter collects
    nothing.
    """
    gc.collect(_OLDEST - 1)
