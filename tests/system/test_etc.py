"""What is in ``etc/`` is good for the programs that it is written for."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.house import build, role
from tests.support.keys import sign_host
from tests.support.process import descendants, program, run
from tests.support.proxy import ROOT, Proxy, our_environment
from tests.support.sshd import version
from tests.support.stage import Stage
from tests.support.systemd import NotifySocket
from tests.support.wait import fact

ETC = ROOT / "etc"


@pytest.mark.parametrize("unit", ["conchrec.service", "conchrec.socket"])
async def test_passes_systemd_verification(stage: Stage, unit: str) -> None:
    """systemd knows every word in them."""
    for name in ("conchrec.service", "conchrec.socket"):
        text = (ETC / name).read_text()
        stage.file(name, re.sub("/opt/conchrec/bin/[a-z]+", "/bin/true", text))
    result = await run("systemd-analyze", "verify", "--man=no", stage.path(unit))
    assert (result.stdout, result.stderr, result.code) == (b"", b"", 0), str(result)


def test_runs_service_without_privileges() -> None:
    lines = (ETC / "conchrec.service").read_text().splitlines()
    for wanted in ("User=conchrec", "ProtectSystem=strict", "CapabilityBoundingSet=", "NoNewPrivileges=yes"):
        assert wanted in lines
    assert any(line.startswith("LimitNOFILE=") for line in lines)
    assert "LimitCORE=0" in lines, "there are keys in the memory"
    assert not any(line.startswith("AmbientCapabilities") for line in lines), "only for a port under 1024"


async def test_serves_first_connection_of_socket_activation(stage: Stage) -> None:
    """The listening socket is handed over; the first connection is served."""
    proxy = Proxy(stage.path("proxy"), {**role(), "listen": ["systemd:domain=INET:index=0"]})
    twistd = Path(sys.executable).with_name("twistd")
    environment = our_environment()
    process = stage.process(
        *("systemd-socket-activate", "--listen", f"127.0.0.1:{proxy.port}", "--fdname=conchrec.socket"),
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        *(str(twistd), "--nodaemon", "--pidfile=", "conchrec", "-c", str(proxy.config)),
        env=environment,
    )
    await process.says("Listening on")
    result = await run("ssh-keyscan", "-T", "30", "-t", "ed25519", "-p", str(proxy.port), "127.0.0.1")
    assert "ssh-ed25519" in result.text, f"{result}\n{process}"
    await fact(lambda: proxy.audit("service.start"), lambda: str(process))


async def test_reports_to_systemd(stage: Stage) -> None:
    """As ``Type=notify`` and ``WatchdogSec=`` require."""
    house = await build(stage)
    proxy, manager = house.proxy, NotifySocket(str(stage.path("notify")))
    await proxy.stop()
    proxy.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    messages: list[str] = []
    seen: list[str] = []

    async def report(wanted: str) -> None:
        """Wait for a message that begins like this, and forget it and those before."""

        def has_come() -> bool:
            come = manager.messages()
            messages.extend(come)
            seen.extend(come)
            return any(message.startswith(wanted) for message in messages)

        await fact(has_come, lambda: f"not reported: {wanted}: {messages}\n{proxy.log}")
        while not messages.pop(0).startswith(wanted):
            pass

    await proxy.start()
    await report("READY=1\nSTATUS=0 connections, 0 sessions")
    await report("WATCHDOG=1")
    assert proxy.process is not None
    children = [pid for pid, _ in descendants(proxy.process.pid)]
    assert children, "the helper process of key exchanges"
    for pid in children:
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
    session = house.client().start("web1", "echo begun; cat", stdin=None)
    await session.says("begun")
    await report("WATCHDOG=1\nSTATUS=1 connection, 1 session")

    good = proxy.config.read_text()
    proxy.config.write_text("nonsense: true\n")
    proxy.process.kill(signal.SIGHUP)
    await report("RELOADING=1")
    status = "1 connection, 1 session; THE LAST RELOAD WAS REFUSED: see the log"
    await report(f"READY=1\nSTATUS={status}")
    assert "nonsense" not in "".join(seen), "every user of the machine may read it"
    proxy.config.write_text(good)
    proxy.process.kill(signal.SIGHUP)
    await report("RELOADING=1")
    await report("READY=1\nSTATUS=1 connection, 1 session")
    await report("WATCHDOG=1")

    proxy.process.kill(signal.SIGTERM)
    await report("STOPPING=1")
    await proxy.process.wait()
    assert (await session.wait()).code == 255
    manager.close()


async def test_starts_sshd_with_sample_configuration(stage: Stage) -> None:
    """sshd takes it; and with its last resort where this sshd is new enough."""
    host, authority = await stage.key("host"), await stage.key("authority")
    signed = await sign_host(authority, host, "web1")
    text = (ETC / "sshd_config.sample").read_text()
    if await version() >= (9, 8):
        text = re.sub("^#(PerSourcePenaltyExemptList)", r"\1", text, flags=re.MULTILINE)
    text = text.replace("/etc/ssh/conchrec_user_ca.pub", str(authority.public))
    text = text.replace("/etc/ssh/ssh_host_ed25519_key-cert.pub", str(signed.certificate))
    text = re.sub("^HostKey .*$", f"HostKey {host.path}", text, flags=re.MULTILINE)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    result = (await run(program("sshd"), "-T", "-f", stage.file("sshd_config", text))).check()
    effective = result.text.splitlines()
    assert "maxstartups 100:30:300" in effective
    assert f"trustedusercakeys {authority.public}" in effective
    assert f"hostcertificate {signed.certificate}" in effective
    assert "9.8" in text and "PerSourcePenaltyExemptList" in text


def test_uses_same_paths_in_all_files() -> None:
    """The paths of the unit, of logrotate and of the sample configuration are the same."""
    rotated = re.search("^(/.*) {$", (ETC / "logrotate.conf").read_text(), flags=re.MULTILINE)
    assert rotated is not None
    assert f"file: {rotated[1]}" in (ETC / "config.yaml").read_text()
    assert Path(rotated[1]).parent == Path("/var/log/conchrec")
    assert "LogsDirectory=conchrec" in (ETC / "conchrec.service").read_text()
