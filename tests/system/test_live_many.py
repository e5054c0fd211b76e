"""200 live sessions: a reload, a lock of half of them, the end of a grant, and a stream through it all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from datetime import datetime, timedelta, timezone
from typing import cast

import asyncssh

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import fact, in_thread
from tests.system.test_live_change import in_seconds, moment

#: Of each user: ten connections with ten sessions each.
CONNECTIONS, SESSIONS = 10, 10
COUNT = CONNECTIONS * SESSIONS


class Crowd:
    """Sessions of one user by asyncssh, in a thread with a loop of its own."""

    def __init__(self, house: House, user: str, key: str) -> None:
        self._house = house
        self._user = user
        self._key = key
        self.ready = 0
        self.ended: list[float] = []
        self.failed: list[BaseException] = []
        self._stop = False

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        self._stop = True

    async def _run(self) -> None:
        held = [asyncio.create_task(self._connection()) for _ in range(CONNECTIONS)]
        while not self._stop:
            self.failed = [error for task in held if task.done() and (error := task.exception())]
            await asyncio.sleep(0.05)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    async def _connection(self) -> None:
        proxy = self._house.proxy
        outer = await asyncssh.connect(
            proxy.host,
            proxy.port,
            username=self._user,
            client_keys=[self._key],
            known_hosts=None,
            config=None,
        )
        inner = await outer.connect_ssh(
            "localhost",
            self._house.target.port,
            username=LOGIN,
            client_keys=[self._key],
            known_hosts=None,
            config=None,
        )
        processes = [await inner.create_process("echo ready; cat") for _ in range(SESSIONS)]
        for process in processes:
            assert await process.stdout.readline() == "ready\n"
            self.ready += 1
        try:
            await asyncio.gather(*(process.wait_closed() for process in processes))
            self.ended += [time.monotonic()] * SESSIONS
        finally:
            outer.close()


async def test_applies_changes_to_200_live_sessions(stage: Stage) -> None:
    ann_key, joe_key = await stage.key("ann"), await stage.key("joe")
    house = await build(
        stage, sshd=["MaxSessions 20", "MaxStartups 100"], settings={"roles": {"ops": {"options": {}}}}
    )
    users = cast(dict[str, dict[str, object]], json.loads(json.dumps(house.proxy.settings["users"])))
    for name, key in (("ann", ann_key), ("joe", joe_key)):
        users[name]["authorized_keys"] = [*cast(list[str], users[name]["authorized_keys"]), key.line]
    house.proxy.configure({"users": users})
    await house.proxy.restart()
    crowds = {"ann": Crowd(house, "ann", str(ann_key.path)), "joe": Crowd(house, "joe", str(joe_key.path))}
    running = [in_thread(crowd.run) for crowd in crowds.values()]
    try:
        ann, joe = crowds["ann"], crowds["joe"]
        await fact(
            lambda: ann.ready == joe.ready == COUNT,
            lambda: f"{ann.ready} and {joe.ready} are in: {ann.failed} {joe.failed}",
        )
        script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.02; done"
        stream = house.client(AccessMethod.CERTIFICATE).start("web1", script, stdin=b"")
        await stream.says("line 3\n")

        # A reload that changes nothing for anybody.
        assert house.proxy.process is not None
        house.proxy.configure({"notice": "Hello."})
        house.proxy.process.kill(signal.SIGHUP)
        await house.proxy.audited("config.reload", result="ok", changed=["notice"])
        assert not ann.ended and not joe.ended

        # Half of them are locked out.
        (await house.proxy.command("lock", "--user", "ann")).check()
        locked = time.monotonic()
        await fact(lambda: len(ann.ended) == COUNT, lambda: f"{len(ann.ended)} have ended")
        assert max(ann.ended) - locked < 4.0
        assert not joe.ended

        # A stream has run through all of it.
        (await stream.wait(60)).check()
        text = b"".join(b"line %d\n" % number for number in range(400))
        assert hashlib.sha256(bytes(stream.stdout)).digest() == hashlib.sha256(text).digest()

        # The grant of the others ends.
        end, until = in_seconds(3)
        users["joe"]["roles"] = [f"ops until {until}"]
        house.proxy.configure({"users": users})
        house.proxy.process.kill(signal.SIGHUP)
        await house.proxy.audited("config.reload", count=2)
        await fact(lambda: len(joe.ended) == COUNT, lambda: f"{len(joe.ended)} have ended")
        assert datetime.now(timezone.utc) - end < timedelta(seconds=4)
        ends = await house.proxy.audited("session.end", count=2 * COUNT)
        early = [event for event in ends if event["user"] == "joe" and moment(event) < end]
        assert len(early) == 1, "only the stream has ended before"
        assert {str(end["reason"])[:8] for end in ends if end["user"] == "ann"} == {"user ann"}
    finally:
        for crowd in crowds.values():
            crowd.stop()
        for session in running:
            await session
