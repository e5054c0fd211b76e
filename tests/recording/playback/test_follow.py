"""Reading a recording that grows, plain and compressed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError
from conchrec.recording.catalogue.library import LibraryEntry
from conchrec.recording.format.asciicast import Header, event_line
from conchrec.recording.playback.follow import CompleteRecording, Follower, Tail
from conchrec.recording.storage.encodings import ZstdFrames

SID = "0" * 26
LINES = [
    Header(width=20, height=5, env={"TERM": "xterm"}).line(),
    *(event_line(n, "o", f"line {n}\r\n") for n in range(1, 9)),
    event_line(9, "r", "30x4"),
]


class GrowingRecording:
    """A file that somebody writes to."""

    def __init__(self, directory: Path, ending: str = ".cast") -> None:
        self.path = directory / f"{SID}{ending}"
        self.path.write_bytes(b"")
        self.tail = Tail(LibraryEntry(sid=SID, path=self.path))

    def grows(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def ends(self) -> None:
        self.path.with_name(f"{SID}.json").write_bytes(b"{}")

    def read(self) -> list[str]:
        """Return everything that can be read now."""
        texts: list[str] = []
        while events := self.tail.read():
            texts += [event.text for event in events]
        return texts


@given(st.lists(st.integers(1, 90), min_size=1, max_size=12), st.booleans())
def test_reads_recording_that_grows_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], packed: bool
) -> None:
    growing = GrowingRecording(tmp_path_factory.mktemp("follow"), ".cast.zst" if packed else ".cast")
    data = b"".join(LINES)
    if packed:
        packer = ZstdFrames()
        data = b"".join(
            packer.compress([line]) + (packer.cut() if n % 3 == 0 else b"") for n, line in enumerate(LINES)
        )
    texts: list[str] = []
    for size in sizes:
        growing.grows(data[:size])
        data = data[size:]
        texts += growing.read()
        assert not growing.tail.ended
    growing.grows(data)
    growing.ends()
    for _ in range(len(LINES)):
        # The end of a packed frame alone is no event, and not the end of the file.
        texts += growing.read()
    assert texts == [*(f"line {n}\r\n" for n in range(1, 9)), "30x4"]
    assert growing.tail.ended and growing.tail.header is not None
    assert growing.tail.header.width == 20


def test_reads_everything_before_the_end(tmp_path: Path) -> None:
    growing = GrowingRecording(tmp_path)
    growing.grows(b"".join(LINES))
    growing.ends()
    assert len(growing.tail.read()) == len(LINES) - 1
    assert not growing.tail.ended
    assert growing.tail.read() == [] and growing.tail.ended


@pytest.mark.parametrize(
    ("ending", "data"), [(".cast", LINES[0] + b"nonsense\n"), (".cast.zst", b"nonsense")]
)
def test_raises_at_damage(tmp_path: Path, ending: str, data: bytes) -> None:
    growing = GrowingRecording(tmp_path, ending)
    growing.grows(data)
    with pytest.raises(RecordingError):
        growing.read()


def test_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    path = tmp_path / f"{SID}.cast"
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        Tail(LibraryEntry(sid=SID, path=path))


def test_paints_pictures(tmp_path: Path) -> None:
    growing = GrowingRecording(tmp_path)
    follower = Follower(growing.tail, size=(60, 10))
    assert follower.advance(0).text == "" and follower.picture() == ""
    growing.grows(LINES[0] + LINES[1])
    frame = follower.advance(0)
    assert "line 1" in frame.text and " live  0:01 " in frame.text and not frame.over
    assert follower.advance(0).wake == 0.2
    growing.grows(b"".join(LINES[2:]))
    growing.ends()
    while not frame.over:
        frame = follower.advance(0)
    assert follower.picture() == "line 6\x1b[K\nline 7\x1b[K\nline 8\x1b[K\n"
    assert Follower(growing.tail).advance(0, "q").over


def test_shows_complete_recording() -> None:
    whole = CompleteRecording(iter(LINES))
    assert [event.text for event in whole.read()][-1] == "30x4"
    assert not whole.ended and whole.read() == [] and whole.ended
