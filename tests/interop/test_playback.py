"""Looking at what was recorded, with stock ssh and with the command, on a real terminal (tmux)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.cast import plays_as
from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.process import environment
from tests.support.proxy import our_environment
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.tmux import Tmux, start_tmux
from tests.support.wait import block, fact

HOSTILE = [
    "\x1b[c", "\x1b[>c", "\x1b[=c", "\x1bZ", "\x1b[5n", "\x1b[6n", "\x1b[?6n", "\x1b[?996n", "\x1b[>q",
    "\x1b[?u", "\x1b[18t", "\x1b[21t", "\x1b[14t", "\x1b[20t", "\x1b[?25$p", "\x1b[4$p", "\x1b[x", "\x1b[1x",
    "\x1b[1$w", "\x05", "\x1b[?1000h", "\x1b[?1002h", "\x1b[?1003h", "\x1b[?1004h", "\x1b[?1006h",
    "\x1b[?1015h", "\x1b[?2004h", "\x1b[?9h", "\x1b[?2031h", "\x1b[?2048h", "\x1b[?2l", "\x1b[?9001h",
    "\x1b[?7700h", "\x1b[?7727h", "\x1b[>4;2m", "\x1b[>1u", "\x1b]0;evil\x07", "\x1b]2;evil\x1b\\",
    "\x1bkevil\x1b\\", "\x1b]1;evil\x07", "\x1b]7;file:///evil\x07", "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]52;c;?\x07", "\x1b]4;1;?\x07", "\x1b]10;?\x07", "\x1b]11;?\x07", "\x1b]12;?\x07",
    "\x1b]8;;http://evil/\x07link\x1b]8;;\x07", "\x1b]9;evil\x07", "\x1b]99;;evil\x07",
    "\x1b]777;notify;evil;evil\x07", "\x1b]1337;File=name=ZXZpbA==:AAAA\x07", "\x1b]133;A\x07",
    "\x1b]50;evil\x07", "\x1b]60\x07", "\x1b]104\x07", "\x1bP$qm\x1b\\", "\x1bP$qr\x1b\\",
    "\x1bP+q544e\x1b\\", "\x1bP1$r0m\x1b\\", "\x1bPq#0;2;0;0;0~\x1b\\", "\x1bP0;0|17/65\x1b\\",
    "\x1bPtmux;\x1b\x1b]52;c;ZXZpbA==\x07\x1b\\", "\x1b_Gi=1,a=q;AAAA\x1b\\", "\x1b_evil\x1b\\",
    "\x1b^evil\x1b\\", "\x1bXevil\x1b\\", "\x90$qm\x9c", "\x9bc", "\x9b6n", "\x9d52;c;?\x9c", "\x9f\x9c",
    "\x9a", "\x1b[5i", "\x1b[4i", "\x1b[0i", "\x1b[?5i", "\x1b[2t", "\x1b[3;0;0t", "\x1b[4;9;9t",
    "\x1b[8;9;9t", "\x1b[9;1t", "\x1b[22;0t", "\x1b[23;0t", "\x1b[2h", "\x1b[12l", "\x1b[20h", "\x1b=",
    "\x1b>", "\x1b[3J", "\x1b[3g", "\x1bH", "\x1b[1;1;1;1;1T", "\x1bn", "\x1bo", "\x1b|", "\x1b}", "\x1b~",
    "\x1b6", "\x1b9", "\x1b%G", "\x1b%@", "\x1b F", "\x1b[!p", "\x1bc", "\x1b[99999b", "\x1b[1;24r",
    "\x1b[?1049h", "\x1b[?25l", "\x1b[8m", "\x0e", "\x1b(0", "\x1b[1;1;1;1;24;80*y", "\x1b[2*x", "\x1b[#{",
    "\x1b[1'z", "\x1b['|", "\x1b[1\"q", "\x1b[62\"p", "\x1b[?1043h",
]  # fmt: skip


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    """ann may look at everything."""
    house = block(build(shared_stage, start=False))
    everything = {"logins": [LOGIN], "hosts": ["localhost"], "options": {"recordings": "all"}}
    nothing = {"logins": [LOGIN], "hosts": ["localhost", "127.0.0.0/8"], "options": {"recordings": "none"}}
    house.proxy.configure({"roles": {"auditors": everything, "blind": nothing}})
    house.proxy.configure({"users": {"ann": {"roles": ["ops", "auditors"]}}})
    block(house.proxy.start())
    house.authority = block(house.proxy.authority("host"))
    return house


async def recorded(house: House, command: str, *, terminal: tuple[int, int] | None = (60, 12)) -> str:
    """What joe did; its session id."""
    before = house.proxy.sids()
    process = house.client().start("-q", "-tt" if terminal else "-T", "web1", command, terminal=terminal)
    (await process.wait()).check()
    return (await house.proxy.finished_one(after=before)).sid


async def printed(house: House, text: str) -> str:
    """A recording in which a terminal got exactly that."""
    path = house.stage.file(house.stage.unique("text"), text)
    return await recorded(house, f"stty raw; cat {path}")


@pytest.fixture(scope="module")
def slow(house: House) -> str:
    """Twelve seconds in three that are filled: a line each second, with colours."""
    lines = "".join(f"printf '\\033[3{n % 8}mline %s\\033[m\\n' {n}; sleep 0.25; " for n in range(1, 13))
    return block(recorded(house, lines))


def ssh(client: Client, *words: str) -> list[str]:
    return ["env", f"SSH_AUTH_SOCK={client.env['SSH_AUTH_SOCK']}", "ssh", *client.options, *words]


async def local(house: House, *, columns: int = 100, rows: int = 30) -> Tmux:
    """A terminal on the proxy itself."""
    return await start_tmux(
        house.stage, house.proxy.directory, columns=columns, rows=rows,
        env=environment(**{name: our_environment()[name] for name in ("PYTHONPATH",)}),
    )  # fmt: skip


def command(house: House, *words: str) -> list[str]:
    program = "from conchrec.cli.main import run; run()"
    return [sys.executable, "-c", program, "recordings", *words, "-c", str(house.proxy.config)]


@pytest.fixture(params=["ssh", "local"])
def playback(request: pytest.FixtureRequest, house: House) -> Playback:
    return Playback(house, over_ssh=request.param == "ssh")


class Playback:
    """``play`` on a terminal, in both ways that there are."""

    def __init__(self, house: House, *, over_ssh: bool) -> None:
        self.house = house
        self.over_ssh = over_ssh

    def words(self, *words: str) -> list[str]:
        if self.over_ssh:
            return ssh(self.house.client(), "-q", "-t", "proxy", *words)
        return command(self.house, *words)

    async def terminal(self, *, columns: int = 100, rows: int = 30) -> Tmux:
        return await local(self.house, columns=columns, rows=rows)


# -- playing


async def test_follows_player_keys(playback: Playback, slow: str) -> None:
    tmux = await playback.terminal()
    await tmux.runs(*playback.words("play", slow))
    await tmux.shows("line 2")
    await tmux.types(" ")
    shown = await tmux.shows(" paused ", row=29)
    assert "0:03" in shown[29] and "line 12" not in "".join(shown)
    await tmux.types("End")
    assert (await tmux.shows("line 12"))[12:29] == [""] * 17, (
        "the last line that was recorded has a line feed"
    )
    await tmux.types("0")
    await tmux.shows(" paused  0:00", row=29)
    assert "line" not in "".join((await tmux.screen())[:29])
    await tmux.types(".")
    await tmux.shows("line 1")
    await tmux.types("Right")
    await tmux.shows("line 12")
    await tmux.types("Home", "-", "-", "5")
    await tmux.shows("0.25x", row=29)
    await tmux.shows("line 6")
    await tmux.types("q")
    assert "playing" not in "".join(await tmux.shows("ready$"))


async def test_restores_terminal_at_end_of_recording(playback: Playback, slow: str) -> None:
    tmux = await playback.terminal()
    await tmux.runs(
        "sh", "-c", 'stty -g > before; exec "$@"', "sh", *playback.words("play", slow, "--speed", "8")
    )
    await tmux.shows("line 12")
    await tmux.shows("ready$")
    await tmux.runs("sh", "-c", "stty -g | cmp - before && echo the same")
    shown = await tmux.shows("the same")
    assert any("before; exec" in line for line in shown), "what was there before is there"
    assert not any(" / 0:" in line for line in shown)


async def test_keeps_terminal_safe_from_hostile_sequences(playback: Playback) -> None:
    assert len(HOSTILE) > 100
    text = "".join(f"<{n}{sequence}>" for n, sequence in enumerate(HOSTILE))
    sid = await printed(playback.house, text + "\x1b[m\x1b(B\x0f\x1b[2J\x1b[Hthe end")
    tmux = await playback.terminal()
    await tmux.command("select-pane", "-T", "honest")
    await tmux.command("set-buffer", "honest")
    script = '"$@"; echo over-$0-$?; exec cat > typed'
    typed = playback.house.proxy.directory / "typed"
    for words in (("play", sid), ("follow", sid), ("text", sid)):
        typed.unlink(missing_ok=True)
        await tmux.runs("sh", "-c", script, words[0], *playback.words(*words))
        # The name tells it from what the round before has left on the screen.
        assert "the end" in "".join(await tmux.shows(f"over-{words[0]}-0"))
        # Whatever a terminal answers, it types; so this comes after it.
        await tmux.types("honest", "Enter", "C-d")
        await fact(lambda: typed.exists() and typed.read_text() == "honest\n", typed.read_text)
        await tmux.runs("clear")
    assert (await tmux.command("display", "-p", "#{pane_title}")).strip() == "honest"
    assert (await tmux.command("show-buffer")).strip() == "honest"
    assert (
        await tmux.command("display", "-p", "#{mouse_any_flag}#{alternate_on}#{cursor_flag}")
    ).strip() == "001"


async def test_plays_on_small_terminal(playback: Playback, slow: str) -> None:
    tmux = await playback.terminal(columns=140, rows=8)
    await tmux.runs(*playback.words("play", slow))
    await tmux.shows("line 1")
    await tmux.types(" ")
    await tmux.shows("60x12 is too large", row=7)
    await tmux.types("End")
    assert "line 12" in "".join(await tmux.shows("0:03 / 0:03", row=7))
    await tmux.types("q")
    await tmux.shows("ready$")


async def test_redraws_when_terminal_is_resized(playback: Playback, slow: str) -> None:
    tmux = await playback.terminal()
    await tmux.runs(*playback.words("play", slow))
    await tmux.shows("line 1")
    await tmux.types(" ")
    await tmux.shows("paused", row=29)
    tmux.rows = 20
    await tmux.command("resize-window", "-x", "90", "-y", "20")
    await tmux.shows("paused", row=19)


async def test_prints_to_pipe_without_delay(house: House, slow: str) -> None:
    expected = "".join(f"\x1b[3{n % 8}mline {n}\x1b[m\r\n" for n in range(1, 13)).encode()
    client = house.client()
    result = (await client.ssh("proxy", "play", slow)).check()
    assert (result.stdout, result.stderr) == (expected, b"")
    assert (await client.ssh("proxy", "follow", slow)).check().stdout == expected
    lines = "".join(f"line {n}\n" for n in range(1, 13))
    assert (await client.ssh("proxy", "text", slow)).check().text == lines
    assert (await house.proxy.command("recordings", "play", slow)).check().stdout == expected
    assert (await house.proxy.command("recordings", "text", slow)).check().text == lines


# -- signals, on the proxy itself


async def test_redraws_after_stop_and_continue(house: House, slow: str) -> None:
    tmux = await local(house)
    words = command(house, "play", slow, "--speed", "0.1")
    script = 'set -m; stty -g > was; "$@"; echo stopped; stty -g | cmp - was && read x && fg && echo ended'
    await tmux.runs("bash", "-c", script, "sh", *words)
    await tmux.shows("playing", row=29)
    await tmux.types("C-z")
    assert "playing" not in "".join(await tmux.shows("stopped", row=None))
    await tmux.types("Enter")
    await tmux.shows("playing", row=29)
    await tmux.types("q")
    assert "playing" not in "".join(await tmux.shows("ended"))


@pytest.mark.parametrize("number", ["TERM", "HUP", "INT"])
async def test_restores_terminal_after_signal(house: House, slow: str, number: str) -> None:
    tmux = await local(house)
    words = command(house, "play", slow, "--speed", "0.1")
    await tmux.runs("sh", "-c", 'stty -g > was; echo $$ > pid; exec "$@"', "sh", *words)
    await tmux.shows("playing", row=29)
    pid = (house.proxy.directory / "pid").read_text().strip()
    await tmux.command("run-shell", f"kill -{number} {pid}")
    await tmux.shows("ready$")
    await tmux.runs("sh", "-c", "stty -g | cmp - was && echo the same")
    assert "playing" not in "".join(await tmux.shows("the same"))


# -- who may


async def test_shows_users_their_own_recordings(house: House, slow: str) -> None:
    before = house.proxy.sids()
    ann = house.client(person=house.ann)
    listed = (await house.client().ssh("proxy", "recordings")).check().text
    assert f"{slow} " in listed and f" joe {LOGIN}@localhost:" in listed
    assert before == {line.split()[0] for line in listed.splitlines()}
    assert (await ann.ssh("proxy", "recordings")).check().text == listed
    for words in (["--user", "ann"], ["--live"], ["--since", "2100-01-01"], ["--host", "nix"]):
        assert (await ann.ssh("proxy", "recordings", *words)).check().text == ""
    (await ann.ssh("proxy", "text", slow)).check()
    (event,) = house.proxy.audit("session.recording.access", by="ann")
    assert (event["action"], event["sid"], event["user"]) == ("text", slow, "joe")
    assert str(event["addr"]).startswith("127.0.0.1:") and event["cid"]


def _no_recording(sid: str) -> str:
    """What a user reads of a recording that does not exist, or that others may view."""
    advice = "To list those that you may view: recordings"
    return f"conchrec: no recording '{sid}', or you may not view it. {advice}\n"


async def test_hides_recordings_of_others(stage: Stage) -> None:
    house = await build(stage, settings={"roles": {"blind": {"options": {"recordings": "none"}}}})
    sid = await recorded(house, "echo hello", terminal=None)
    own, other = house.client(), house.client(person=house.ann)
    assert (await own.ssh("proxy", "text", sid)).check().text == "hello\n"
    looked = len(house.proxy.audit("session.recording.access"))
    nobody = "0" * 26
    for name in ("play", "text", "follow"):
        for hidden in (sid, nobody):
            refused = await other.ssh("proxy", name, hidden)
            assert (refused.code, refused.errors) == (1, _no_recording(hidden))
    assert (await other.ssh("proxy", "recordings")).check().text == ""
    house.proxy.configure({"users": {"joe": {"roles": ["blind"]}}})
    await house.proxy.restart()
    assert (await own.ssh("proxy", "text", sid)).errors == _no_recording(sid)
    assert (await own.ssh("proxy", "recordings")).check().text == ""
    assert "recordings:" not in (await own.ssh("proxy")).check().text
    assert len(house.proxy.audit("session.recording.access")) == looked


@pytest.mark.parametrize(
    "words", ["play", "play a b", "play --speed 0 a", "play --speed x a", "text", "follow",
              "recordings --since x", "recordings x", "play --raw a"],
)  # fmt: skip
async def test_rejects_wrong_usage(house: House, words: str) -> None:
    refused = await house.client().ssh("proxy", words)
    assert refused.code == 64 and refused.stdout == b""
    assert refused.errors.startswith(f"conchrec: {words.split()[0]}: ") and refused.errors.count("\n") == 1


async def test_refuses_to_play_encrypted_recording(stage: Stage) -> None:
    key = await stage.key("auditor")
    house = await build(stage, settings={"recordings": {"encrypt_to": [key.line]}})
    before = len(house.proxy.audit("session.end"))
    (await house.client().ssh("web1", "echo secret")).check()
    (ended,) = await house.proxy.audited("session.end", count=before + 1)
    sid = str(ended["sid"])
    for name in ("play", "text", "follow"):
        refused = await house.client().ssh("proxy", name, sid)
        assert refused.code == 1 and refused.stdout == b""
        assert refused.errors.startswith(f"conchrec: recording {sid} is encrypted")
        result = await house.proxy.command("recordings", name, sid, "--identity", key.path)
        assert (result.code, result.text) == (0, "secret\n"), str(result)
        assert (await house.proxy.command("recordings", name, sid)).code == 1


@pytest.mark.parametrize("name", ["play", "text"])
async def test_shows_output_before_damage(house: House, name: str) -> None:
    sid = await recorded(house, "echo good", terminal=None)
    (path,) = (path for path in house.proxy.casts() if sid in path.name)
    path.write_bytes(path.read_bytes() + b"\0\n")
    problem = "the recording is damaged: a line is not JSON"
    advice = f"; to check it: conchrec recordings verify {sid}"
    over_ssh = await house.client().ssh("proxy", name, sid)
    assert (over_ssh.code, over_ssh.text, over_ssh.errors) == (1, "good\n", f"conchrec: {problem}\n")
    local = await house.proxy.command("recordings", name, sid)
    assert (local.code, local.text, local.errors) == (1, "good\n", f"conchrec: {sid}: {problem}{advice}\n")


# -- what is going on now


async def test_follows_live_session(playback: Playback) -> None:
    house = playback.house
    before = house.proxy.sids()
    session = house.client().start("-q", "-tt", "web1", "echo first; read x; echo second", terminal=(60, 12))
    await session.says("first")
    (sid,) = await fact(lambda: house.proxy.sids() - before, "it is recorded")
    piped = house.client().start("-q", "proxy", "follow", sid)
    tmux = await playback.terminal()
    await tmux.runs(*playback.words("follow", sid))
    await tmux.shows("first")
    await tmux.shows(" live ", row=29)
    await piped.says("first")
    assert piped.is_running
    session.write(b"\r")
    (await session.wait()).check()
    await tmux.shows("second")
    assert " live " not in "".join(await tmux.shows("ready$"))
    assert (await piped.wait()).check().stdout == b"first\r\n\r\nsecond\r\n"
    followed = house.proxy.audit("session.recording.access", action="follow", sid=sid)
    assert len(followed) == 2


async def test_follows_live_compressed_session(stage: Stage) -> None:
    house = await build(stage, settings={"recordings": {"compress": True}})
    session = house.client().start("-q", "-tt", "web1", "echo first; read x; echo second", terminal=(60, 12))
    await session.says("first")
    (started,) = await house.proxy.audited("session.start")
    sid = str(started["sid"])
    local = house.client().start("-q", "proxy", "follow", sid)
    await local.says("first")
    session.write(b"\r")
    (await session.wait()).check()
    assert (await local.wait()).check().stdout == b"first\r\n\r\nsecond\r\n"


async def test_limits_memory_for_stalled_viewer(house: House) -> None:
    """Neither the proxy's memory grows, nor does anybody wait."""
    sid = await recorded(house, "head -c 60000000 /dev/zero | tr '\\0' x", terminal=None)
    client = house.client()
    before = house.proxy.memory()
    process = house.stage.process("sh", "-c", 'exec "$@" | { read x; sleep 600; }', "sh",
                                  *ssh(client, "-q", "proxy", "play", sid), env=client.env)  # fmt: skip
    await fact(lambda: house.proxy.audit("session.recording.access", action="play", sid=sid), "it has begun")
    for _ in range(10):
        (await client.ssh("web1", "true")).check()
    assert house.proxy.memory() - before < 20_000_000
    await process.stop()
    assert len((await client.ssh("proxy", "play", sid)).check().stdout) == 60_000_000


async def test_ends_playback_when_proxy_stops(stage: Stage) -> None:
    house = await build(stage)
    sid = await recorded(house, "echo one; sleep 0.2; echo two")
    tmux = await local(house)
    await tmux.runs(*ssh(house.client(), "-t", "proxy", "play", sid, "--speed", "0.07"))
    await tmux.shows("playing", row=29)
    await house.proxy.stop()
    shown = "".join(await tmux.shows("the proxy is shutting down"))
    assert "ready$ " in shown and "playing" not in shown


# -- as a file


async def test_exports_playable_recordings(house: House, slow: str, tmp_path: Path) -> None:
    hostile = await printed(house, "".join(HOSTILE) + "\r\nend")
    for sid in (slow, hostile):
        path = tmp_path / f"{sid}.cast"
        (await house.proxy.command("recordings", "export", sid, "-o", path)).check()
        header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert set(header) <= {"version", "width", "height", "timestamp", "command", "title", "env"}
        assert {code for _, code, _ in lines} <= set("oirmx")
        await plays_as(path, "".join(text for _, code, text in lines if code == "o").encode(), "cat", "play")


async def test_serves_viewers_during_playback_of_hostile_recording(house: House, slow: str) -> None:
    """Clear-screens on a terminal of 1,000 by 1,000, looked at by several viewers at once."""
    flood = house.stage.file(house.stage.unique("flood"), "\x1b[2J\x1b[H\x1b[999bx" * 100_000)
    sid = await recorded(house, f"stty raw; cat {flood}", terminal=(1000, 1000))
    joe = house.client()
    viewers = [joe.start("-q", "-tt", "proxy", "play", sid, terminal=(1000, 1000)) for _ in range(3)]
    for viewer in viewers:
        await viewer.says("\x1b[?1049h")
    ann = house.client(AccessMethod.CERTIFICATE, person=house.ann)
    assert "line 12" in (await ann.ssh("proxy", "text", slow)).check().text
    assert "line 12" in (await ann.ssh("proxy", "play", slow)).check().text
    for viewer in viewers:
        viewer.kill()
        await viewer.wait()
