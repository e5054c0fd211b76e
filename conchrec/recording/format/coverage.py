"""What a recording does not hold: the words of a manifest's ``coverage``, and what they mean."""

from __future__ import annotations

from enum import Enum


class NotKept(Enum):
    """``value`` is the word."""

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
    NotKept.INPUT: "what the user sent is counted, and hashed where there is no terminal, and not kept",
    NotKept.HIDDEN_INPUT: "something was typed that the terminal did not show; it is not kept",
    NotKept.LATER_INPUT: "of what the user sent the first MiB is kept",
    NotKept.DIGEST_ONLY: "of a file transfer only sizes and digests are kept: of both streams, and of"
    " each file that passed whole",
    NotKept.FILE_CONTENTS: "the same in recordings of earlier versions, which have no digests of the streams",
    NotKept.FILES_LOST: "the protocol of a file transfer could not be followed to its end: the account of its"
    " files is not complete",
    NotKept.OUTPUT_BYTES: "some output was no UTF-8; in its place there is U+FFFD",
    NotKept.ENV: "environment variables are kept up to a size; of longer ones there are size and hash",
    NotKept.COMMAND: "the command is longer than what is kept of it; its hash is there",
    NotKept.FORWARDS: "the connection had forwards: their bytes are counted in the audit",
    NotKept.X11: "the connection had X11 channels: their bytes are counted in the audit",
    NotKept.AGENT: "the user's agent was relayed to the target: its signatures are in the audit",
    NotKept.END: "conchrec was stopped while the session ran: what came then is missing, and some of the"
    " other words may be, too",
    NotKept.REST: "the recording broke off while the session ran",
}
