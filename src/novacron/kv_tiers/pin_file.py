"""Pins on disk, beside the blocks that they keep. One file for each identity of blocks, because the
hashes of another model, precision or layout name other blocks.

A file that cannot be read costs the pins, never the start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from novacron.kv_tiers.pins import PinnedPrefix

logger = logging.getLogger(__name__)

_VERSION = 1


class _Kept(msgspec.Struct, frozen=True):
    version: int
    pins: tuple[PinnedPrefix, ...]


class PinFile:
    """`folder` is the disk tier's; None: pins end with the process."""

    def __init__(self, folder: Path | None, identity: bytes) -> None:
        self._path = None if folder is None else folder / f"pins-{identity.hex()}.json"

    def read(self) -> tuple[PinnedPrefix, ...]:
        if self._path is None:
            return ()
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.warning("The pins in %s cannot be read, and are lost: %s", self._path, error)
            return ()
        return kept.pins if kept.version == _VERSION else ()

    def write(self, pins: Sequence[PinnedPrefix]) -> None:
        """Raises OSError. A process that dies meanwhile leaves the old pins."""
        if self._path is None:
            return
        if not pins:
            self._path.unlink(missing_ok=True)
            return
        unfinished = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Kept(_VERSION, tuple(pins))))
            unfinished.replace(self._path)
        finally:
            unfinished.unlink(missing_ok=True)
