"""The rights with which a process opens files in the directories of the proxy.

These directories belong to the account that runs the proxy. If root opened files there, it would follow
links of that account with root's rights (``audit.jsonl`` → ``/root/.bashrc``). So a command of root takes on
the owner's uid and gid, without other groups, before it opens anything there; new files belong to the owner.

Files that root names on the command line (``--out FILE``, ``--identity FILE``) are opened within
``as_invoker``, by commands that can return to root's rights (``for_good=False``).
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

#: The account that started the process.
INVOKER_UID = os.getuid()


class CannotActAsOwner(ConchrecError):
    """The operating system does not allow root to become the owner."""

    default_code = ReasonCode.WRONG_ACCOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The owner of a directory, whose rights a process takes on."""

    uid: int
    gid: int
    directory: Path


def foreign_owner(directory: Path) -> Owner | None:
    """The owner of the directory, if this process has root's rights and another account owns it; else None.

    Raises OSError.
    """
    if os.geteuid() != 0:
        return None
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return None
    if status.st_uid == 0:
        return None
    try:
        gid = pwd.getpwuid(status.st_uid).pw_gid
    except KeyError:
        gid = status.st_gid
    return Owner(uid=status.st_uid, gid=gid, directory=directory)


def act_as(owner: Owner, *, for_good: bool) -> None:
    """Take on the owner's rights. Raises CannotActAsOwner; then the process must not continue.

    With ``for_good`` the process can never get root's rights again, not even if an attacker controls it.
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
            f"{owner.directory} belongs to the user {uid}, and root cannot become that user"
            f" ({error.strerror}); run this command as the account that runs conchrec"
        ) from error


@contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Run with the rights of the directory's owner; with unchanged rights if ``foreign_owner`` has none."""
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
    """Run with the rights of the account that started the process, if the process can get them again."""
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
    """A descriptor of a new file. Raises OSError, and FileExistsError for an existing file or link."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def reopen(path: Path, flags: int) -> int:
    """A descriptor of an existing file. Follows only links of root or of our own account. Raises OSError."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    link = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(link).st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "is not followed: a symbolic link of another user", str(path))
        # Read the link by its descriptor: the path may name another file by now.
        destination = os.readlink("", dir_fd=link)
    finally:
        os.close(link)
    return os.open(path.parent / destination, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
