"""With whose rights a process works in the directories of the proxy.

They belong to the user that runs the proxy. A command of root's that opened files there would follow that
user's links with root's rights (``audit.jsonl`` → ``/root/.bashrc``). So it takes on the owner's uid and gid,
without other groups, before it opens anything there; what it makes is the owner's by itself.

What root names on the command line (``--out FILE``, ``--identity FILE``) is root's business: it is opened
within ``as_invoker``, by commands that have kept the way back (``for_good=False``).
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conchrec.errors import ConchrecError
from conchrec.reasons import ReasonCode

#: Who has started the process, whatever rights it has taken on since.
INVOKER = os.getuid()


class CannotActAsOwner(ConchrecError):
    """The operating system does not let root become the owner."""

    default_code = ReasonCode.WRONG_ACCOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose rights are to be taken on, for the sake of which directory."""

    uid: int
    gid: int
    directory: Path


def foreign_owner(directory: Path) -> Owner | None:
    """Who owns the directory, where this process is root's and the directory is not. Raises OSError."""
    if os.geteuid() != 0:
        return None
    try:
        there = os.stat(directory)
    except FileNotFoundError:
        return None
    if there.st_uid == 0:
        return None
    try:
        gid = pwd.getpwuid(there.st_uid).pw_gid
    except KeyError:
        gid = there.st_gid
    return Owner(uid=there.st_uid, gid=gid, directory=directory)


def act_as(owner: Owner, *, for_good: bool) -> None:
    """Take on the owner's rights. Raises CannotActAsOwner; then the process must not go on.

    ``for_good``: there is no way back, also not for code that an attacker has made it run.
    """
    uid, gid = owner.uid, owner.gid
    try:
        os.setgroups([])
        if for_good:
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        else:
            os.setegid(gid)
            os.seteuid(uid)
    except OSError as error:
        raise CannotActAsOwner(
            f"{owner.directory} belongs to user {uid}, and root cannot become that user"
            f" ({error.strerror}): run this as the user that runs conchrec"
        ) from error


@contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """With the rights of the directory's owner, for a while; nothing where there is no other owner."""
    owner = foreign_owner(directory)
    if owner is None:
        yield
        return
    groups = os.getgroups()
    act_as(owner, for_good=False)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


@contextmanager
def as_invoker() -> Iterator[None]:
    """With the rights of the user who started the process, where it can take them on again."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == os.getuid():
        yield
        return
    os.seteuid(os.getuid())
    os.setegid(os.getgid())
    try:
        yield
    finally:
        os.setegid(gid)
        os.seteuid(uid)


def create(path: Path, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """A descriptor of a new file. Raises FileExistsError where there is one, or a link; and OSError."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def reopen(path: Path, flags: int) -> int:
    """A descriptor of a file that is there. Follows a link of root's or our own alone. Raises OSError."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    link = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(link).st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "is not followed: a symbolic link of another user", str(path))
        # Of this very link: the name may be another one's by now.
        leads_to = os.readlink("", dir_fd=link)
    finally:
        os.close(link)
    return os.open(path.parent / leads_to, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
