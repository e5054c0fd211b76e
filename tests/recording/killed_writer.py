"""A process that records until it is killed: ``python killed_writer.py DIRECTORY``.

Prints the path, then the number of each line that it has recorded more than the merge time ago.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from conchrec.clock import Clock, utc_now
from conchrec.model import SessionInfo, Target
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.open_recordings import MERGE_SECONDS
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore


class Loop(Clock, Protocol):
    """The part of the reactor that is used here."""

    def getThreadPool(self) -> ThreadPool: ...

    def run(self) -> None: ...


def main(directory: Path, key: Path, loop: Loop) -> None:
    threads = cast(IReactorFromThreads, loop)
    store = LocalStore(
        finisher=Finisher(RecordingTree(directory), RecordingSigner.parse(key.read_bytes()), utc_now),
        clock=loop,
        in_thread=partial(deferToThreadPool, threads, loop.getThreadPool()),
    )
    now = utc_now()
    recorder = store.open(
        SessionInfo(
            sid=new_session_id(now),
            cid="c",
            user="joe",
            login="root",
            target=Target(host="web1"),
            address="192.0.2.7:50000",
            started=now,
        )
    )
    recorder.start("shell")
    print(recorder.path, flush=True)
    write(loop, recorder, 0)
    loop.run()


def write(loop: Loop, recorder: SessionRecorder, number: int) -> None:
    recorder.output(b"line %d\r\n" % number)
    loop.callLater(MERGE_SECONDS * 3, lambda: print(number, flush=True))
    loop.callLater(0.001, write, loop, recorder, number + 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), cast(Loop, global_reactor))
