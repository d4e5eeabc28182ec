"""Choosing tokens with the native kernels.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref, c_float, c_int64
from dataclasses import dataclass

import torch
from torch import Tensor

from novacron.kernels.native.library import NativeContext, SampleCall, SampleRow
from novacron.kernels.table import Draw


@dataclass(frozen=True)
class NativeChoose:
    """Implements Choose. Its weights may differ from those of torch in the last of their 44 bits,
    where the two round an exponential differently."""

    context: NativeContext

    def __call__(self, logits_RV: Tensor, draws: Sequence[Draw]) -> tuple[list[int], list[float]]:
        num_rows, vocab_size = logits_RV.shape
        assert logits_RV.dtype == torch.float32
        assert logits_RV.stride(1) == 1
        rows = (SampleRow * num_rows)(*draws)  # type: ignore[misc]  # ctypes takes tuples
        tokens, peaks = (c_int64 * num_rows)(), (c_float * num_rows)()
        call = SampleCall(
            logits_RV.data_ptr(), addressof(rows), addressof(tokens), addressof(peaks),
            num_rows, vocab_size, logits_RV.stride(0),
        )  # fmt: skip
        self.context.library.novacron_sample(self.context.pointer, byref(call))
        return list(tokens), list(peaks)
