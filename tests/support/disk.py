"""A disk that is really full."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import run
from tests.support.stage import Stage

KIB = 1024


@dataclass(kw_only=True)
class SmallDisk:
    """1 MiB: a tmpfs of its own where we may mount one (root). Elsewhere an ordinary directory, and the
    kernel's limit on the size of a process's files stops its writes."""

    directory: Path
    mounted: bool

    def fill(self, pid: int) -> None:
        """Nothing more goes onto it; ``pid`` is the process that is to notice."""
        if self.mounted:
            with (self.directory / "ballast").open("wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 4 * KIB):
                        pass
                except OSError:
                    pass  # it is full now
        else:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))

    def limit(self, pid: int) -> None:
        """No more than 1 MiB in a file, where it is not the disk that ends there."""
        if not self.mounted:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024 * KIB, hard))

    def make_room(self, pid: int) -> None:
        """Undo ``fill``."""
        if self.mounted:
            (self.directory / "ballast").unlink()
        else:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


async def small_disk(stage: Stage) -> SmallDisk:
    """A disk that goes away with the stage; ask for it before the processes that use it."""
    directory = stage.path(stage.unique("disk"))
    directory.mkdir()
    if os.geteuid() == 0:
        mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "conchrec-test", directory)
        if (await run(*mount)).code == 0:  # a container's root may not

            async def unmount() -> None:
                (await run("umount", "--lazy", directory)).check()

            stage.at_end(unmount)
            return SmallDisk(directory=directory, mounted=True)
    return SmallDisk(directory=directory, mounted=False)
