"""The cut of layers that hosts had at the last start: kept where it is still sensible, because the
KV blocks and packed weights that hosts keep are of their layers, and not found with others."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import blake3
import msgspec

from novacron.config.folders import cache_folder
from novacron.config.model import ModelConfig
from novacron.models.layer_costs import LayerCosts

_WORTH_MOVING: Final = 1.25  # times as long as with the best cut: what a measured speed may be off
_FOLDER: Final = "cuts"

logger = logging.getLogger(__name__)


def is_worth_keeping(
    former: Sequence[int],
    best: Sequence[int],
    costs: LayerCosts,
    *,
    speeds: Sequence[float],
    room_bytes: Sequence[float],
) -> bool:
    """Whether stages that end before the layers `former` fit, and take little longer than those
    that end before `best`. Pure."""
    starts = (0, *former)
    is_a_cut = len(former) == len(best) and former[-1] == len(costs.layers)
    if not is_a_cut or any(stop <= start for start, stop in zip(starts, former, strict=False)):
        return False
    held = costs.held(former)
    if any(own > room for own, room in zip(held, room_bytes, strict=True)):
        return False
    return _longest(held, speeds) <= _WORTH_MOVING * _longest(costs.held(best), speeds)


def _longest(held: Sequence[float], speeds: Sequence[float]) -> float:
    return max(own / speed for own, speed in zip(held, speeds, strict=True))


class CutFile:
    """Of the model at this path in a precision, over these hosts beside rank 0's, below whose cache
    folder it lies. One that cannot be read or written costs no start."""

    def __init__(self, model: ModelConfig, path: Path, hosts: Sequence[str]) -> None:
        about = msgspec.json.encode((str(path), model.dtype, model.quantization, tuple(hosts)))
        name = f"{blake3.blake3(about).hexdigest(16)}.json"
        self._path = cache_folder(model) / _FOLDER / name

    def read(self) -> tuple[int, ...]:
        """Before which layers stages ended; empty if that is not known."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[int, ...])
        except (OSError, msgspec.MsgspecError):
            return ()

    def write(self, stops: Sequence[int]) -> None:
        unfinished = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(tuple(stops)))
            unfinished.replace(self._path)
        except OSError as error:
            logger.warning("The cut of the layers cannot be kept for the next start: %s.", error)
