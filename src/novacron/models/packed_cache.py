"""Weights as the kernels want them, kept on disk: the next start maps them instead of making them.

One file for each model version, precision and layout. A file appears whole or not at all, under a
name that says what it is for; what is in it is checked by samples. Whatever is wrong with a file or
the folder costs only the time to make the weights again, and a line in the log.

    8 bytes   mark
    8 bytes   length of the header, little-endian
    header    JSON: for each matrix its name, place and length; a digest of samples
    contents  each from a multiple of 4096 on
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import blake3
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_MARK = b"NCPACK01"
_ALIGNMENT_BYTES = 4096
_SAMPLE_BYTES = 4096
_SAMPLE_EVERY_BYTES = 2**16
_WORTH_KEEPING_BYTES = 64 * 2**20
_LEFT_BEHIND_S = 3600.0  # a file that nobody has finished within an hour, nobody will


class PackedCache:
    """The files of one folder, together at most `max_bytes`; those used longest ago go first."""

    def __init__(
        self, folder: Path, max_bytes: int, *, fewest_bytes: int = _WORTH_KEEPING_BYTES
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._fewest_bytes = fewest_bytes

    def is_for(self, num_bytes: int) -> bool:
        """Whether weights of this size are kept: making small ones takes no time."""
        return self._fewest_bytes <= num_bytes <= self._max_bytes

    def find(self, key: str) -> Mapping[str, Tensor] | None:
        """The contents of the file for `key` by name, as bytes mapped from it; None if there is no
        sound one."""
        path = self._path(key)
        try:
            found = _read(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("Packed weights in %s cannot be used: %s.", path, error)
            return None
        return found

    def keep(self, key: str, contents: Mapping[str, Tensor]) -> None:
        """Write the file for `key`, and remove what is then too much."""
        needed = sum(tensor.nbytes for tensor in contents.values())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < 2 * needed:
                logger.info("No packed weights are kept: %s has little space left.", self._folder)
                return
            unfinished = self._folder / f"{key}.{os.getpid()}-{threading.get_ident()}.tmp"
            try:
                _write(unfinished, contents)
                unfinished.replace(self._path(key))
            finally:
                unfinished.unlink(missing_ok=True)
            self._remove_old(self._path(key))
        except OSError as error:
            logger.warning("Packed weights cannot be kept in %s: %s.", self._folder, error)

    def keep_in_background(self, key: str, contents: Mapping[str, Tensor]) -> threading.Thread:
        """`keep`, while the model is already serving. An end of the process ends it too."""
        thread = threading.Thread(
            target=self.keep, args=(key, contents), daemon=True, name="keep-packed-weights"
        )
        thread.start()
        return thread

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.packed"

    def _remove_old(self, newest: Path) -> None:
        for path in self._folder.glob("*.tmp"):
            if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                path.unlink(missing_ok=True)
        files = sorted(self._folder.glob("*.packed"), key=lambda path: path.stat().st_mtime)
        excess = sum(path.stat().st_size for path in files) - self._max_bytes
        for path in files:
            if excess > 0 and path != newest:
                excess -= path.stat().st_size
                path.unlink(missing_ok=True)


def _write(path: Path, contents: Mapping[str, Tensor]) -> None:
    places = list(_places([tensor.nbytes for tensor in contents.values()]))
    views = [tensor.numpy().data for tensor in contents.values()]
    header = json.dumps(
        {
            "matrices": [
                {"name": name, "place": place, "length": len(view)}
                for name, place, view in zip(contents, places, views, strict=True)
            ],
            "digest": _digest_of_samples(views),
        }
    ).encode()
    content_start = _aligned(len(_MARK) + 8 + len(header))
    with path.open("wb") as file:
        file.write(_MARK + len(header).to_bytes(8, "little") + header)
        for place, view in zip(places, views, strict=True):
            file.seek(content_start + place)
            file.write(view)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Tensor]:
    """Raises OSError, ValueError, KeyError and TypeError for whatever may be wrong with a file."""
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants it writable
    start = len(_MARK) + 8
    if pages[: len(_MARK)] != _MARK:
        raise ValueError("it is of another kind")
    header_bytes = int.from_bytes(pages[len(_MARK) : start], "little")
    header: dict[str, Any] = json.loads(pages[start : start + header_bytes])
    content_start = _aligned(start + header_bytes)
    found: dict[str, Tensor] = {}
    for entry in header["matrices"]:
        place, length = content_start + entry["place"], entry["length"]
        if place + length > len(pages):
            raise ValueError("it is cut short")
        found[entry["name"]] = torch.frombuffer(
            pages, dtype=torch.uint8, offset=place, count=length
        )
    views = [tensor.numpy().data for tensor in found.values()]
    if _digest_of_samples(views) != header["digest"]:
        raise ValueError("it is damaged")
    return found


def _digest_of_samples(views: Sequence[memoryview]) -> str:
    """Of the beginning of every stretch: shows what was lost or torn, not each flipped bit."""
    hasher = blake3.blake3()
    for view in views:
        hasher.update(len(view).to_bytes(8, "little"))
        for place in range(0, len(view), _SAMPLE_EVERY_BYTES):
            hasher.update(view[place : place + _SAMPLE_BYTES])
    return hasher.hexdigest()


def _places(lengths: Sequence[int]) -> Iterator[int]:
    place = 0
    for length in lengths:
        yield place
        place += _aligned(length)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
