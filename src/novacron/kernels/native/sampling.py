"""Choosing tokens with the native kernels.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref, c_char, c_float, c_int64
from functools import cache
from itertools import chain
from struct import Struct

import torch
from torch import Tensor

from novacron.kernels.native.library import NativeContext, SampleCall
from novacron.kernels.table import Draw

_ROW = "dddqQQ"  # a SampleRow of csrc/api.h: the fields of a Draw, in the same order


class NativeChoose:
    """Implements Choose. Its weights may differ from those of torch in the last of their 44 bits,
    where the two round an exponential differently."""

    def __init__(self, context: NativeContext) -> None:
        self.context = context

    def __call__(self, logits_RV: Tensor, draws: Sequence[Draw]) -> tuple[list[int], list[float]]:
        num_rows, vocab_size = logits_RV.shape
        assert logits_RV.dtype == torch.float32
        assert logits_RV.stride(1) == 1
        packing = _packing(num_rows)
        rows = (c_char * packing.size)()
        packing.pack_into(rows, 0, *chain.from_iterable(draws))
        tokens, peaks = (c_int64 * num_rows)(), (c_float * num_rows)()
        call = SampleCall(
            logits_RV.data_ptr(), addressof(rows), addressof(tokens), addressof(peaks),
            num_rows, vocab_size, logits_RV.stride(0),
        )  # fmt: skip
        self.context.library.novacron_sample(self.context.pointer, byref(call))
        return tokens[:], peaks[:]


@cache
def _packing(num_rows: int) -> Struct:
    """Much quicker than an array of ctypes structures."""
    return Struct(_ROW * num_rows)
