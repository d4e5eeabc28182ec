"""How quickly this host reads weights: what a step of few tokens is bound by."""

from __future__ import annotations

import time
from typing import Final

import torch

_ROWS: Final = 4096
_COLUMNS: Final = 4096  # 64 MiB in float32: more than caches hold
_TRIES: Final = 4


def measure_bytes_per_s() -> float:
    """The best of a few products of a matrix and a vector, with the threads that torch has now."""
    weight, x = torch.ones(_ROWS, _COLUMNS), torch.ones(_COLUMNS)
    best_s = float("inf")
    for _ in range(_TRIES):
        started_s = time.perf_counter()
        torch.mv(weight, x)
        best_s = min(best_s, time.perf_counter() - started_s)
    return weight.nbytes / best_s
