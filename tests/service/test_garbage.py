"""Full collections visit only what is new, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

START = """
import gc
import conchrec.service
from conchrec.service.garbage import bound_collections, collect_all, collect_new
class Node:
    def __init__(self):
        self.itself = self
def count():
    return len(gc.get_objects())
"""


def printed(program: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", START + program], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()


def test_excludes_what_exists_at_start() -> None:
    before, after = map(int, printed("before = count(); bound_collections(); print(before, count())"))
    assert after < before / 20


def test_visits_each_object_in_one_full_collection() -> None:
    """Objects are made as by sessions that begin and stay."""
    program = """
bound_collections()
visited = []
def collected(phase, info):
    if phase == "start" and info["generation"] == 2:
        visited.append(count())
gc.callbacks.insert(0, collected)
live = [[i] for i in range(300_000)]
print(len(visited), max(visited), sum(visited))
"""
    collections, most, total = map(int, printed(program))
    assert collections > 5
    assert most < 40_000
    assert total < 450_000


def test_collects_excluded_garbage_while_nobody_is_connected() -> None:
    program = """
import weakref
bound_collections()
node = Node()
found = weakref.ref(node)
gc.collect()
del node
gc.collect()
print(found() is None)
collect_all()
print(found() is None)
"""
    assert printed(program) == ["False", "True"]


def test_collects_new_garbage() -> None:
    program = """
import weakref
bound_collections()
gc.disable()
found = weakref.ref(Node())
collect_new()
print(found() is None)
"""
    assert printed(program) == ["True"]
