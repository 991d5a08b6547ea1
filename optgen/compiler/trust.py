"""Who can have written what is loaded: a library in the cache runs as the user, and so must be the user's own.

In: a folder, or the status of an open file. Out: nothing where only the user and root can have put something there;
else a CacheError that says who could. It never proposes to make a folder trustworthy that others could write: what they
have left in it would be trusted with it.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from ..errors import CacheError

__all__ = ["ELSEWHERE", "expect_own_file", "expect_own_folder", "expect_safe_place", "others_can_write"]

ELSEWHERE = "set OPTGEN_CACHE_DIR to a folder of your own that can be written"


def expect_own_folder(folder: Path, hint: str) -> None:
    """CacheError unless `folder` is a real directory of the user, which nobody else can write. Raises `OSError`."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise CacheError(f"the cache folder {folder}: expected a real directory, got a link", hint=ELSEWHERE)
    _expect_owner(folder, status, "the cache folder", hint)
    if others_can_write(status):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        message = f"the cache folder {folder}: expected one that only you can write, got {mode}"
        raise CacheError(message, hint=hint)


def expect_own_file(path: Path, status: os.stat_result, hint: str) -> None:
    """CacheError unless the file at `path`, of this `status`, belongs to the user."""
    _expect_owner(path, status, "the file", hint)


def _expect_owner(path: Path, status: os.stat_result, what: str, hint: str) -> None:
    if hasattr(os, "geteuid") and status.st_uid != (user := os.geteuid()):
        message = f"{what} {path}: expected one of yours (user {user}), got one of user {status.st_uid}"
        raise CacheError(message, hint=hint)


def expect_safe_place(folder: Path) -> None:
    """CacheError if somebody else could exchange `folder` for another one, since a folder above it is his or can be
    written by him. `folder` is a path without links. Raises `OSError`."""
    for parent in folder.parents if hasattr(os, "geteuid") else ():
        status = parent.lstat()
        if status.st_uid not in (0, os.geteuid(), _unmapped()):
            message = (
                f"the cache folder {folder}: expected it in folders of yours, got {parent} of user {status.st_uid}"
            )
            raise CacheError(message, hint=ELSEWHERE)
        # In a folder with the sticky bit, such as /tmp, everybody moves his own only.
        if others_can_write(status) and not status.st_mode & stat.S_ISVTX and not _by_own_group_only(status):
            mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
            message = f"the cache folder {folder}: expected it where nobody else writes, got {parent}, {mode}"
            raise CacheError(message, hint=ELSEWHERE)


def others_can_write(status: os.stat_result) -> bool:
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and hasattr(os, "geteuid")


def _by_own_group_only(status: os.stat_result) -> bool:
    """Whether nobody but the user gains by the mode: the group is that which many systems make for each user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    own = (group.gr_gid, group.gr_name) == (user.pw_gid, user.pw_name) and set(group.gr_mem) <= {user.pw_name}
    return own and not status.st_mode & stat.S_IWOTH


@cache
def _unmapped() -> int | None:
    """In a user namespace, as of a container: to whom everything seems to belong that belongs to nobody in it, among
    that root's own folders. None where there is no such namespace."""
    try:
        if Path("/proc/self/uid_map").read_text("ascii").split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
    except (OSError, ValueError):
        return None
