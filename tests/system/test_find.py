"""What was done is found again: the real proxy, its index, and the commands."""

from __future__ import annotations

import json

from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import fact

FULL_SCREEN = (
    r"printf '\033[?1049h\033[2J\033[3;5Hthe \033[1mpassphrase\033[m of the vault\033[24;1H:wq\033[?1049l'"
)


async def indexed(house: House) -> None:
    """Every recording that is over is in the index, without anybody's asking."""
    paths = house.proxy.casts()

    async def missing() -> str:
        return (await house.proxy.command("recordings", "search", "xyzzy", "--json")).errors

    for _ in range(100):
        output = await missing()
        if not output:
            return
        assert any(
            why in output for why in ("not in the index yet", "there is no index", "cannot use the index")
        ), output
    raise AssertionError(f"{paths} are not in the index: {house.proxy.log}")


async def test_finds_screen_contents(stage: Stage) -> None:
    house = await build(stage)
    house_client = house.client()
    process = house_client.start("-q", "-tt", "web1", terminal=(80, 24))
    process.write(FULL_SCREEN.encode() + b"; exit\n")
    await process.wait()
    (await house_client.ssh("web1", "echo plain words; true 'rm -rf /srv'")).check()
    (full, plain) = [cast.sid for cast in await house.proxy.finished(2)]
    await indexed(house)
    output = (await house.proxy.command("recordings", "search", "passphrase of the vault")).check().text
    assert [line.split()[0] for line in output.splitlines()][-1] == full
    assert "the passphrase of the vault" in output and " joe " in output
    as_json = await house.proxy.command("recordings", "search", "rm -rf /srv", "--json")
    (hit,) = json.loads(as_json.text)
    assert (hit["sid"], hit["time"], hit["line"]) == (plain, None, "echo plain words; true 'rm -rf /srv'")
    words = json.loads((await house.proxy.command("recordings", "search", "plain words", "--json")).text)
    assert [hit["sid"] for hit in words] == [plain, plain]
    nothing = await house.proxy.command("recordings", "search", "plain words", "--user", "eve")
    assert (nothing.code, nothing.text) == (1, "")
    no_words = await house.proxy.command("recordings", "search", "***")
    assert no_words.code == 1 and "a phrase must contain a letter or a digit" in no_words.errors
    # The index is a cache: without it everything is as before.
    listed = (await house.proxy.command("recordings", "ls")).check().text
    for path in house.proxy.recordings_directory.glob("index.sqlite*"):
        path.unlink()
    assert (await house.proxy.command("recordings", "ls")).check().text == listed
    result = await house.proxy.command("recordings", "search", "plain")
    assert result.code == 1 and "conchrec recordings rebuild-index" in result.errors
    rebuilt = (await house.proxy.command("recordings", "rebuild-index")).check()
    assert rebuilt.text == "the index has 2 recordings\n"
    assert plain in (await house.proxy.command("recordings", "search", "plain words")).check().text


async def test_finds_text_shown_by_less(stage: Stage) -> None:
    house = await build(stage)
    text = stage.path("text")
    text.write_text("".join(f"line {number} of a page\n" for number in range(500)) + "the hidden treasure\n")
    client = house.client()
    process = client.start("-q", "-tt", "web1", f"less {text}", terminal=(80, 24))
    await process.says("line 3 of a page")
    process.write(b"G")
    await process.says("the hidden treasure")
    process.write(b"q")
    await process.wait()
    cast = await house.proxy.finished_one()
    await indexed(house)
    hits = json.loads(
        (await house.proxy.command("recordings", "search", "hidden treasure", "--json")).check().text
    )
    assert {(hit["sid"], hit["line"]) for hit in hits} == {(cast.sid, "the hidden treasure")}
    assert (await house.proxy.command("recordings", "search", "line 300 of a page")).code == 1


async def test_rebuilds_damaged_index_and_forgets_pruned_recordings(stage: Stage) -> None:
    house = await build(stage)
    client = house.client()
    (await client.ssh("web1", "echo the early bird")).check()
    await house.proxy.finished(1)
    await indexed(house)
    index = house.proxy.recordings_directory / "index.sqlite"
    index.write_bytes(b"nothing that anybody could read" * 1000)
    (await client.ssh("web1", "echo the late bird")).check()
    (early, late) = [cast.sid for cast in await house.proxy.finished(2)]
    await indexed(house)
    result = (await house.proxy.command("recordings", "search", "bird")).check().text
    assert {line.split()[0] for line in result.splitlines()} == {early, late}
    (await house.proxy.command("recordings", "hold", late, "--reason", "birds")).check()
    (await house.proxy.command("recordings", "prune", "--size", "1KiB")).check()
    assert b"early" not in index.read_bytes() and b"late" in index.read_bytes()
    assert (await house.proxy.command("recordings", "search", "early")).code == 1
    assert late in (await house.proxy.command("recordings", "search", "late")).check().text


async def test_fills_index_after_restart_and_lists_live_sessions(stage: Stage) -> None:
    house = await build(stage)
    (await house.client().ssh("web1", "echo early bird")).check()
    await house.proxy.finished_one()
    await house.proxy.stop()
    for path in house.proxy.recordings_directory.glob("index.sqlite*"):
        path.unlink()
    await house.proxy.start()
    await indexed(house)
    assert "early bird" in (await house.proxy.command("recordings", "search", "early bird")).check().text
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun")
    live = (await house.proxy.command("recordings", "ls", "--live", "--json")).check().text
    (entry,) = json.loads(live)
    assert entry["status"] == "live" and entry["command"] == "echo begun; cat"
    everything = (await house.proxy.command("recordings", "ls")).check().text
    assert len(everything.splitlines()) == 2
    newest = (await house.proxy.command("recordings", "ls", "--limit", "1")).check().text
    assert newest == everything.splitlines(keepends=True)[1]
    process.close_input()
    await process.wait()
    await fact(lambda: len(house.proxy.audit("session.end")) == 2, "it is over")
