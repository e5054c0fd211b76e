"""What the whole process asks of its operating system, once, when it starts."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

from conchrec.text import decode_text

#: malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
#: linux/prctl.h
_PR_SET_DUMPABLE = 4
#: So much free memory is kept for the next packets; what is larger than the other is mapped by itself.
_KEPT = 8 * 1024 * 1024
_MAPPED = 1024 * 1024
#: How long a thread may keep Python's lock while another one waits for it.
SWITCH_SECONDS = 0.0005


def keep_secrets() -> bool:
    """No core file, and nobody's debugger: there are keys in the memory. Whether the latter is so, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def raise_file_limit() -> None:
    """Every user costs two sockets and a file: take as many as we are given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def knows_aes(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for AES, as far as the operating system says it."""
    try:
        text = decode_text(cpuinfo.read_bytes())
    except OSError:
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and "aes" in flags[1].split()


def share_lock_often() -> None:
    """Let threads hand over Python's lock every half a millisecond.

    The reactor gives it up at each call of the system, and a thread that computes (one that plays a
    recording, or makes a digest) keeps it for 5 ms by default: one key takes a dozen such calls.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def spare_permanent_objects() -> None:
    """Keep the garbage collector away from all that there is now, modules and classes above all.

    Call it when everything is set up. A full collection walks over every object that can hold others: that
    of a proxy without any users took 65 ms, in which nobody was served, and a flood of sessions makes one
    every few seconds.
    """
    gc.collect()
    gc.freeze()


def keep_freed_memory() -> bool:
    """Where the C library is glibc, let it keep a little of what is freed; whether it does.

    By itself it gives the end of the heap back whenever 128 KiB are free there, and packets are that
    large: a quarter of the CPU of a download went into page faults, for memory that was just given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED))
