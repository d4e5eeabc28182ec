"""Where wrapped data keys lie: beside what is encrypted with them, whoever shares that.

A key is a small value under its id, written whole or not at all, and never changed but by being
wrapped anew. So processes need no lock: two that start at a time may each add one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

ID: Final = re.compile(r"[0-9a-f]{16}")


class KeyPlace(Protocol):
    """Both raise OSError."""

    @property
    def shown(self) -> str:
        """For people, without passwords."""
        ...

    def read(self) -> Mapping[str, bytes]:
        """All of them, by id."""
        ...

    def write(self, id: str, data: bytes) -> None: ...


class FolderPlace:
    """Implements KeyPlace: a file for each, readable to its owner alone. The folder is made when
    the first is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def shown(self) -> str:
        return str(self._folder)

    def read(self) -> Mapping[str, bytes]:
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return {}
        found = {}
        for name in names:
            id = name.removesuffix(".key")
            if name.endswith(".key") and ID.fullmatch(id):
                found[id] = (self._folder / name).read_bytes()
        return found

    def write(self, id: str, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f"{id}.{os.getpid()}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._folder / f"{id}.key")
        finally:
            new.unlink(missing_ok=True)
