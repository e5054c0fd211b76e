"""The start: what is wrong with a configuration is said at once, all of it, and what is missing is made."""

from __future__ import annotations

import os
import stat

from tests.support.house import build, role
from tests.support.proxy import Proxy, conchrec
from tests.support.stage import Stage
from tests.support.wait import fact

BROKEN = """\
cluster_name: example.com
state_dir: state
listen: ["tcp:3023", "no such endpoint"]
session_recordin: proxy
users:
  joe: {authorized_keys: ["ssh-rsa nonsense"], roles: [nobody]}
roles:
  ops: {logins: [root], hosts: ["300.0.0.0/8"]}
limits: {login_time: soon}
"""


async def test_reports_all_configuration_errors(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), {})
    proxy.config.write_text(BROKEN)
    result = await proxy.command("config", "check")
    assert result.code == 78, str(result)
    assert "Traceback" not in result.errors
    for expected in (
        "session_recordin",
        "session_recording",
        "users.joe",
        "limits.login_time",
        "config.yaml:4: ",
        "config.yaml:9: ",
    ):
        assert expected in result.errors, result.errors
    process = proxy.launch()
    stage.at_end(process.stop)
    ended = await process.wait()
    assert ended.code not in (0, None), str(ended)
    assert "Traceback" not in proxy.log
    for expected in ("session_recordin", "users.joe", "limits.login_time"):
        assert expected in proxy.log


async def test_rejects_malformed_yaml(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), {})
    proxy.config.write_text('users: {joe: [\nroles: "')
    result = await proxy.command("config", "check")
    assert result.code == 78, str(result)
    assert "config.yaml:2: " in result.errors and "Traceback" not in result.errors, result.errors
    process = proxy.launch()
    stage.at_end(process.stop)
    assert (await process.wait()).code == 78
    assert "config.yaml:2: " in proxy.log and "Traceback" not in proxy.log


async def test_reports_missing_configuration(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), {})
    proxy.config.unlink()
    result = await proxy.command("config", "check")
    assert result.code == 78, str(result)
    assert str(proxy.config) in result.errors and "Traceback" not in result.errors
    process = proxy.launch()
    stage.at_end(process.stop)
    assert (await process.wait()).code == 78
    assert "Traceback" not in proxy.log


async def test_accepts_valid_configuration(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), role())
    (await proxy.command("config", "check")).check()


async def test_reports_port_in_use(stage: Stage) -> None:
    first, second = Proxy(stage.path("first"), role()), Proxy(stage.path("second"), role())
    stage.at_end(first.stop)
    await first.start()
    second.configure({"listen": [f"tcp:{first.port}:interface=127.0.0.1"]})
    process = second.launch()
    stage.at_end(process.stop)
    assert (await process.wait()).code == 1
    text = f"conchrec: cannot listen on 127.0.0.1:{first.port}: Address already in use"
    assert text in second.log and "Traceback" not in second.log, second.log


async def test_starts_with_configuration_by_init(stage: Stage) -> None:
    """What `conchrec init` makes starts as it stands, with another port."""
    top = stage.path("made")
    result = (await conchrec("init", top, directory=stage.directory)).check()
    assert "conchrec" in result.text
    config = top / "config.yaml"
    proxy = Proxy(stage.path("elsewhere"), {})
    text = config.read_text()
    assert "3023" in text
    config.write_text(text.replace("3023", str(proxy.port)))
    proxy.config = config
    checked = await proxy.command("config", "check")
    assert checked.code == 0, str(checked)
    stage.at_end(proxy.stop)
    await proxy.start()
    await proxy.stop()


async def test_creates_missing_state_directory(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), role())
    state = proxy.directory / "state"
    assert not state.exists()
    stage.at_end(proxy.stop)
    await proxy.start()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    await fact(lambda: str(state) in proxy.log, "the log does not say what was made")
    for kind in ("user", "host"):
        assert (await proxy.authority(kind)).count("ssh-ed25519 ") == 1
    assert (await proxy.authority("host")).startswith("@cert-authority * ssh-ed25519 ")
    assert os.listdir(proxy.directory).count("twistd.pid") == 0


async def test_refuses_to_replace_lost_recording_key(stage: Stage) -> None:
    """None is made in its place in silence; with the old line in the new file old recordings still verify."""
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    await house.proxy.audited("session.end")
    await house.proxy.stop()
    key = house.proxy.directory / "state" / "recording_key"
    key.unlink()
    process = house.proxy.launch()
    assert (await process.wait()).code == 78
    assert (
        "recording_key.pub exists, but the private key" in house.proxy.log
        and "Traceback" not in house.proxy.log
    )
    old = key.with_suffix(".pub").read_text()
    key.with_suffix(".pub").unlink()
    await house.proxy.start()
    assert (await house.proxy.command("recordings", "verify")).code == 1
    with key.with_suffix(".pub").open("a") as file:
        file.write(old)
    assert (await house.proxy.command("recordings", "verify")).code == 0


async def test_prints_ssh_config_that_works(stage: Stage) -> None:
    proxy = Proxy(stage.path("proxy"), role())
    stage.at_end(proxy.stop)
    await proxy.start()
    result = (await proxy.command("ssh-config")).check()
    assert (await proxy.authority("host")).strip() in result.text
    assert f"Port {proxy.port}" in result.text
    assert "HostName 127.0.0.1" in result.text
