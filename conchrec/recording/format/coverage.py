"""What a recording does not hold: the words of ``coverage`` in a manifest, and their meanings."""

from __future__ import annotations

from enum import Enum


class NotKept(Enum):
    """A word of ``coverage``."""

    INPUT = "input"
    HIDDEN_INPUT = "hidden-input"
    LATER_INPUT = "later-input"
    DIGEST_ONLY = "digest-only"
    FILE_CONTENTS = "file-contents"
    FILES_LOST = "files-lost"
    OUTPUT_BYTES = "output-bytes"
    ENV = "env"
    COMMAND = "command"
    FORWARDS = "forwards"
    X11 = "x11"
    AGENT = "agent"
    END = "end"
    REST = "rest"


MEANINGS = {
    NotKept.INPUT: "input is not recorded: it is counted, and hashed where there is no terminal",
    NotKept.HIDDEN_INPUT: "input that the terminal did not show (passwords, for example) is not recorded",
    NotKept.LATER_INPUT: "only the first MiB of the input is recorded",
    NotKept.DIGEST_ONLY: "of a file transfer only sizes and digests are recorded: of both streams, and of"
    " each file that was transferred completely",
    NotKept.FILE_CONTENTS: "the same in recordings of earlier versions, which have no digests of the streams",
    NotKept.FILES_LOST: "the protocol of a file transfer could not be followed to its end: the list of files"
    " is incomplete",
    NotKept.OUTPUT_BYTES: "some output was not UTF-8; U+FFFD stands in its place",
    NotKept.ENV: "long environment variables are cut; their size and digest are recorded",
    NotKept.COMMAND: "the command is cut; its digest is recorded",
    NotKept.FORWARDS: "the connection had forwards: their bytes are only counted, in the audit log",
    NotKept.X11: "the connection had X11 channels: their bytes are only counted, in the audit log",
    NotKept.AGENT: "the user's agent was relayed to the target: its signatures are in the audit log",
    NotKept.END: "conchrec stopped during the session: the rest is missing, and this list may be incomplete",
    NotKept.REST: "the recording failed during the session: the rest is missing",
}
