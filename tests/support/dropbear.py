"""A stock dropbear on loopback: a small target, as routers and rescue systems have it."""

from __future__ import annotations

import grp
import os
import signal
from pathlib import Path

from tests.support.keys import Key
from tests.support.process import Process, environment, program, run
from tests.support.sshd import LOGIN


async def start_dropbear(directory: Path, *, host_key: Key, port: int) -> tuple[Process, Path]:
    """Start it, and wait until it listens; with the process, its authorized_keys (empty, read at each login).

    It has no option for that file: to dropbear the home of the account that runs the tests is another
    directory (nss_wrapper), and the account's own is neither read nor written.
    """
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    authorized = home / ".ssh" / "authorized_keys"
    authorized.touch(0o600)
    users, groups = directory / "passwd", directory / "group"
    users.write_text(f"{LOGIN}:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n")
    groups.write_text(f"{grp.getgrgid(os.getgid()).gr_name}:x:{os.getgid()}:\n")
    wrapped = environment(
        LD_PRELOAD="libnss_wrapper.so", NSS_WRAPPER_PASSWD=str(users), NSS_WRAPPER_GROUP=str(groups)
    )
    entry = (await run("getent", "passwd", LOGIN, env=wrapped)).text
    assert entry == users.read_text(), "no libnss-wrapper on this machine: run tests/prepare"
    key = directory / "host_key"
    (await run("dropbearconvert", "openssh", "dropbear", host_key.path, key)).check()
    flags = ("-F", "-E", "-s", "-m", "-r", key, "-P", directory / "pid")
    process = Process([program("dropbear"), *flags, "-p", f"127.0.0.1:{port}"], env=wrapped)
    try:
        await process.says("Not backgrounding")  # said once it has its port
    except BaseException:
        await process.stop(signal.SIGKILL)
        raise
    return process, authorized
