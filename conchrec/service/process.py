"""Settings of the process at the operating system and the interpreter, made once at the start."""

from __future__ import annotations

import ctypes
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
#: Bytes of free memory that stay allocated for the next packets; larger blocks than the other are mapped.
_KEPT = 8 * 1024 * 1024
_MAPPED = 1024 * 1024
#: How long a thread may hold Python's global lock while another thread waits for it.
SWITCH_SECONDS = 0.0005


def keep_secrets() -> bool:
    """Prevent core files and debuggers, because keys are in memory. Returns False if it failed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each user needs several descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def knows_aes(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for AES, according to the operating system."""
    try:
        text = decode_text(cpuinfo.read_bytes())
    except OSError:
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and "aes" in flags[1].split()


def share_lock_often() -> None:
    """Let threads release Python's global lock every half millisecond.

    The reactor releases it at each system call, and a thread that computes (to play a recording, or for a
    digest) holds it for 5 ms by default: one keystroke takes a dozen such calls.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def keep_freed_memory() -> bool:
    """Let glibc keep some freed memory. Returns whether it does; False with another C library.

    By default it returns the end of the heap to the system whenever 128 KiB are free there, and packets are
    that large: a quarter of the CPU time of a download were page faults for memory that was just returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED))
