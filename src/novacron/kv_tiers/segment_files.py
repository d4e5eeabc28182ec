"""Locks on a folder of segments and on the files in it, which processes share.

A process that fills a segment holds its lock; whoever makes or removes segments holds the folder's.
The system frees both when a process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SUFFIX: Final = ".kvseg"
_LOCK: Final = "lock"


@contextlib.contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """No other process makes or removes segments meanwhile."""
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_being_filled(path: Path) -> bool:
    """Whether a process writes to this segment now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


def remove_segment(path: Path) -> bool:
    """Delete a segment unless a process fills it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not try_lock(fd):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
