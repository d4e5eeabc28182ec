"""What the machine can do at best: read memory, and multiply matrices in each precision.

    python -m novacron.bench.machine_peaks [--threads N] [--repeats N]

The limits that decoding (reading) and long prompts (multiplying) are measured against. Valid for
the moment of measuring, so measure them in the same run as what they are compared with, in turn.
Imports torch; the rest of the bench must not need it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch

from novacron.bench.machine import read_bandwidth_bytes_per_s, usable_cpus

_SIZE = 2048  # rows, inner size and columns of the products: far beyond caches, yet quick
_REPEATS = 5


class MachinePeaks(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of one measurement."""

    read_gb_per_s: dict[int, float]  # by number of threads
    gop_per_s: dict[str, float]  # by precision; a multiplication and its addition are two


def measure_peaks(num_threads: int, *, repeats: int = _REPEATS) -> MachinePeaks:
    """Takes a second or two. Leaves torch's number of threads as it was."""
    return MachinePeaks(
        read_gb_per_s={
            count: round(read_bandwidth_bytes_per_s(count, repeats=repeats) / 1e9, 1)
            for count in sorted({1, num_threads})
        },
        gop_per_s=products_gop_per_s(num_threads, repeats=repeats),
    )


def products_gop_per_s(num_threads: int, *, repeats: int = _REPEATS) -> dict[str, float]:
    """The rate of square products by PyTorch, in `fp32`, `bf16` and `int8`.

    Of several ways to the same product the fastest counts. A precision that this build of PyTorch
    cannot multiply in is left out.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        rates = {name: _best_rate(ways, repeats) for name, ways in _products().items()}
    finally:
        torch.set_num_threads(before)
    return {name: round(rate, 1) for name, rate in rates.items() if rate}


def median_peaks(readings: Sequence[MachinePeaks]) -> MachinePeaks:
    """Entry by entry, over the readings of a run."""
    return MachinePeaks(
        read_gb_per_s=_medians([one.read_gb_per_s for one in readings]),
        gop_per_s=_medians([one.gop_per_s for one in readings]),
    )


def _medians(readings: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    return {key: statistics.median(one[key] for one in readings) for key in readings[0]}


_Way = Callable[[], object]


def _products() -> dict[str, list[_Way]]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, _SIZE, _SIZE, generator=generator)
    left_bf16, right_bf16 = left.bfloat16(), right.bfloat16()
    shape = (2, _SIZE, _SIZE)
    left_int8, right_int8 = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
    return {
        "fp32": [lambda: left @ right],
        "bf16": [lambda: left_bf16 @ right_bf16],
        "int8": [lambda: torch._int_mm(left_int8, right_int8), _onednn_linear(right_int8)],
    }


def _onednn_linear(weight_int8: torch.Tensor) -> _Way:
    """An int8 linear as quantised models on CPU use it, its weights packed beforehand."""
    inputs = torch.full((_SIZE, _SIZE), 130, dtype=torch.uint8)
    scales, zero_points = torch.full((_SIZE,), 0.01), torch.zeros(_SIZE, dtype=torch.int32)
    packed: list[torch.Tensor] = []

    def run() -> object:
        if not packed:
            packed.append(torch.ops.onednn.qlinear_prepack(weight_int8, list(inputs.shape)))
        return torch.ops.onednn.qlinear_pointwise(
            inputs, 0.01, 128, packed[0], scales, zero_points, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip

    return run


def _best_rate(ways: Sequence[_Way], repeats: int) -> float:
    """10^9 operations per second of the fastest way; 0 where none works."""
    return max(_rate(way, repeats) for way in ways)


def _rate(way: _Way, repeats: int) -> float:
    try:
        way()
    except (RuntimeError, AttributeError, NotImplementedError):
        return 0.0  # not in this build of PyTorch
    times_s = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        way()
        times_s.append(time.perf_counter() - started_s)
    return 2 * _SIZE**3 / statistics.median(times_s) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--repeats", type=int, default=_REPEATS)
    arguments = parser.parse_args()
    peaks = measure_peaks(arguments.threads, repeats=arguments.repeats)
    print(msgspec.json.encode(peaks).decode())


if __name__ == "__main__":
    main()
