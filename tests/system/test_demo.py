"""``conchrec demo``: the whole story, with a stock sshd and without one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.process import Result, environment, run
from tests.support.stage import Stage

DEMO = "from conchrec.cli.main import run; run()"
#: The same on a machine without sshd.
WITHOUT_SSHD = "from conchrec.cli import demo; demo.SBIN = '/nonexistent'; " + DEMO
CLIENT = ("ssh", "ssh-keygen", "ssh-agent", "ssh-add", "cat", "sh", "bash", "uname")


async def demo(stage: Stage, *arguments: str | Path, code: str = DEMO, path: str | None = None) -> Result:
    env = environment(TMPDIR=str(stage.short), **({"PATH": path} if path else {}))
    return await run(sys.executable, "-c", code, "demo", *(str(word) for word in arguments), env=env)


def check_story(result: Result) -> None:
    """It ran the command, and tells of it what there is to tell."""
    assert result.code == 4, str(result)
    assert result.text.startswith("hi\n"), str(result)
    assert "err\n" in result.errors
    for event in ("user.login", "upstream.connect", "session.start", "exec", "session.end"):
        assert f"  {event} " in result.text, f"{event} is missing: {result}"
    assert "exit_status=4" in result.text
    assert result.text.endswith("This is what it shows:\n\nhi\nerr\n"), str(result)


async def test_shows_demo_with_stock_sshd(stage: Stage) -> None:
    result = await demo(stage, "echo hi; echo err >&2; exit 4")
    check_story(result)
    assert "target: a stock sshd" in result.errors
    assert not list(stage.short.glob("conchrec-demo-*")), "it leaves nothing behind"


async def test_shows_demo_without_sshd(stage: Stage) -> None:
    """A small Conch server takes its place."""
    programs = stage.path("bin/ssh").parent
    for name in CLIENT:
        program = shutil.which(name)
        assert program is not None
        (programs / name).symlink_to(program)
    result = await demo(stage, "echo hi; echo err >&2; exit 4", code=WITHOUT_SSHD, path=str(programs))
    check_story(result)
    assert "target: a small Conch server" in result.errors
    assert not list(stage.short.glob("conchrec-demo-*"))


async def test_keeps_directory_on_request(stage: Stage) -> None:
    kept = stage.short / "kept"
    result = await demo(stage, "--keep", kept, "echo hi; echo err >&2; exit 4")
    check_story(result)
    (cast,) = (kept / "recordings").rglob("*.cast")
    assert str(cast) in result.text
    again = await demo(stage, "--keep", kept, "true")
    assert again.code == 1
    assert "already exists" in again.errors


async def test_fails_without_ssh(stage: Stage) -> None:
    result = await demo(stage, "true", path=str(stage.path("empty/none").parent))
    assert result.code == 1
    assert "sudo apt-get install openssh-client" in result.errors
