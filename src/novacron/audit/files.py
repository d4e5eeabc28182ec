"""The folder of an audit log: files, heads and locks of each lane.

Every process that writes has a lane of its own, the first that nobody holds; a lane's chain goes
on over restarts and over its files.

    0-00000001.jsonl   lines, see chain.py; never changed but by a purge
    0-00000002.jsonl   the file that is written, the last of its lane
    0.head             the last place of the chain that was certainly on the disk
    0.lock             locked (flock) by whoever writes the lane
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from novacron.audit.chain import Link

MOST_LANES: Final = 1000
_FILE: Final = re.compile(r"(0|[1-9][0-9]{0,3})-([0-9]{8})\.jsonl")
_HEAD_FILE: Final = re.compile(r"(0|[1-9][0-9]{0,3})\.head")
_HEAD: Final = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,17}),"hash":"([0-9a-f]{64})"\}\n')


def file_of(folder: Path, lane: int, number: int) -> Path:
    return folder / f"{lane}-{number:08d}.jsonl"


def lanes(folder: Path) -> list[int]:
    """Those that have files or a head."""
    names = os.listdir(folder)
    found = [_FILE.fullmatch(name) or _HEAD_FILE.fullmatch(name) for name in names]
    return sorted({int(match[1]) for match in found if match})


def numbers(folder: Path, lane: int) -> list[int]:
    """Those of the lane's files, in order."""
    found = map(_FILE.fullmatch, os.listdir(folder))
    return sorted(int(match[2]) for match in found if match and int(match[1]) == lane)


def read_head(folder: Path, lane: int) -> Link | None:
    """None if there is none, or if it is not one."""
    try:
        match = _HEAD.fullmatch((folder / f"{lane}.head").read_bytes())
    except FileNotFoundError:
        return None
    return Link(int(match[1]), match[2].decode()) if match else None


def has_head(folder: Path, lane: int) -> bool:
    return (folder / f"{lane}.head").exists()


def write_head(folder: Path, lane: int, head: Link) -> None:
    """Whole or not at all. Raises OSError."""
    new = folder / f"{lane}.head.new"
    with new.open("wb") as file:
        keep_owner(folder, file.fileno())
        file.write(f'{{"seq":{head.seq},"hash":"{head.hash}"}}\n'.encode())
    new.replace(folder / f"{lane}.head")


def sync_folder(folder: Path) -> None:
    """So that names of new files outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """With those that it lies in, for the user of the first one that is there, alone."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        keep_owner(folder.parent, folder)


def keep_owner(folder: Path, made: int | Path) -> None:
    """What root makes in another user's folder, by descriptor or path, is that user's: else his
    server could not go on with it. (SQLite does the same.)"""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.chown(made, owner.st_uid, owner.st_gid)


class LaneLock:
    """Whoever has it is the only one to write the lane. The system frees it when a process ends."""

    def __init__(self, folder: Path, lane: int) -> None:
        """Raises BlockingIOError if somebody has it."""
        self.lane = lane
        self._descriptor = os.open(folder / f"{lane}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            keep_owner(folder, self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        os.close(self._descriptor)


def lock_first_free(folder: Path) -> LaneLock:
    """Raises BlockingIOError if there is none."""
    for lane in range(MOST_LANES):
        try:
            return LaneLock(folder, lane)
        except BlockingIOError:
            continue
    raise BlockingIOError("all lanes of the audit log are taken")


def is_locked(folder: Path, lane: int) -> bool:
    """Whether somebody writes the lane. Needs no more than the right to read."""
    try:
        descriptor = os.open(folder / f"{lane}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
