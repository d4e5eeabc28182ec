"""A disk tier's folder from outside: what lies in it, whether it checks, and clearing it.

Needs no server, and may run beside servers that use the folder: reading changes nothing, and a
segment that a process fills is not removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novacron.errors import ConfigError
from novacron.kv_tiers import segment
from novacron.kv_tiers.model_label import ModelLabel, read_label
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.segment_files import SUFFIX, folder_locked, is_being_filled, remove_segment
from novacron.kv_tiers.segment_table import erase, read_table
from novacron.kv_tiers.tier import Bytes
from novacron.records.block import BlockHash


@dataclass(frozen=True)
class FoundSegment:
    """`shape` is None if the file is not a segment of a format that we know. `used_s` is Unix
    time. `keys` are its blocks, as far as its table checks."""

    path: Path
    file_bytes: int
    used_s: float
    is_being_filled: bool
    shape: SegmentShape | None
    keys: tuple[BlockHash, ...]
    num_pinned: int = 0


@dataclass(frozen=True)
class FoundModel:
    """All segments of one model in one precision."""

    identity: bytes | None
    label: ModelLabel | None
    segments: tuple[FoundSegment, ...]
    num_pins: int

    @property
    def name(self) -> str:
        if self.label is not None:
            return self.label.model
        return "unknown" if self.identity is None else self.identity.hex()[:12]

    @property
    def pins_identity(self) -> bytes | None:
        """That of the blocks before they were compressed."""
        if self.identity is None or self.label is None:
            return self.identity
        return self.label.identity_of_pins(self.identity)

    @property
    def is_encrypted(self) -> bool:
        return self.label is not None and self.label.is_encrypted

    @property
    def num_blocks(self) -> int:
        return sum(len(one.keys) for one in self.segments)

    @property
    def file_bytes(self) -> int:
        return sum(one.file_bytes for one in self.segments)

    @property
    def used_s(self) -> float:
        return max(one.used_s for one in self.segments)


@dataclass(frozen=True)
class Checked:
    """How many records of a segment are what they were sealed as, and which are not."""

    segment: FoundSegment
    num_sound: int
    broken: tuple[BlockHash, ...]


def models_in(folder: Path) -> list[FoundModel]:
    """By model, the one used last first. Raises ConfigError if there is no such folder."""
    found: dict[bytes | None, list[FoundSegment]] = {}
    pinned: dict[bytes, frozenset[BlockHash]] = {}
    num_pins: dict[bytes, int] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise ConfigError(
            f"There is no folder of KV blocks at {folder}: {error.strerror or error}. "
            "Name the one that the server uses with --kv-disk-path or --cache-dir."
        ) from None
    for path in paths:
        with contextlib.suppress(OSError):  # gone meanwhile
            one = _read(path)
            identity = None if one.shape is None else one.shape.identity
            if identity is not None and identity not in pinned:
                label = read_label(folder, identity)
                of_pins = identity if label is None else label.identity_of_pins(identity)
                pins = PinFile(folder, of_pins).read()
                pinned[identity] = frozenset(key for pin in pins for key in pin.keys)
                num_pins[identity] = len(pins)
            found.setdefault(identity, []).append(_with_pins(one, pinned.get(identity or b"")))
    models = [
        FoundModel(
            identity,
            None if identity is None else read_label(folder, identity),
            tuple(segments),
            num_pins.get(identity or b"", 0),
        )
        for identity, segments in found.items()
    ]
    return sorted(models, key=lambda model: model.used_s, reverse=True)


IsSound = Callable[[Bytes, bytes, BlockHash], bool]


def check(model: FoundModel, is_sound: IsSound = is_sound) -> Iterator[Checked]:
    """Read every record and compare it with its checksum: `is_sound` knows it by the identity of
    the file and its key. Files that are gone are passed over."""
    for one in model.segments:
        if one.shape is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            yield _check(one, one.shape, is_sound)


def drop_broken(checked: Checked) -> None:
    """Clear the lines of records that do not check. Raises OSError."""
    shape = checked.segment.shape
    assert shape is not None, "only known segments are checked"
    fd = os.open(checked.segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        entries = read_table(fd, shape.num_places)
        for key in checked.broken:
            if key in entries:
                erase(fd, entries[key].place, key)
    finally:
        os.close(fd)


def remove(folder: Path, segments: Sequence[FoundSegment]) -> list[FoundSegment]:
    """Delete these, but not those that a process fills. Returns the ones that are gone."""
    with folder_locked(folder):
        return [one for one in segments if remove_segment(one.path)]


def _read(path: Path) -> FoundSegment:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.fstat(fd)
        shape = SegmentShape.read(fd)
        if shape is not None and shape.file_bytes != stat.st_size:
            shape = None
        keys = () if shape is None else tuple(read_table(fd, shape.num_places))
    finally:
        os.close(fd)
    return FoundSegment(path, stat.st_size, stat.st_mtime, is_being_filled(path), shape, keys)


def _with_pins(one: FoundSegment, pinned: frozenset[BlockHash] | None) -> FoundSegment:
    num_pinned = sum(key in pinned for key in one.keys) if pinned else 0
    return FoundSegment(
        one.path, one.file_bytes, one.used_s, one.is_being_filled, one.shape, one.keys, num_pinned
    )


def _check(one: FoundSegment, shape: SegmentShape, is_sound: IsSound) -> Checked:
    num_sound = 0
    broken: list[BlockHash] = []
    record = np.empty(shape.record_bytes, np.uint8)
    fd = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for key, entry in read_table(fd, shape.num_places).items():
            whole = segment.read_record(fd, shape, entry.place, record)
            if whole and is_sound(record, shape.identity, key):
                num_sound += 1
            else:
                broken.append(key)
    finally:
        os.close(fd)
    return Checked(one, num_sound, tuple(broken))
