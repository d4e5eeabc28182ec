"""Records native operations into a program that one call of the library runs.

While Python computes a step for the only time, the stream of the context (library.py) copies each
call instead of computing it, and hands out memory that is used again as soon as Python has let go
of the tensor in it: the lifetimes of Python's own objects tell which buffers may overlap. Layers
know nothing of this. What torch would compute meanwhile would be missing from the program, so it is
refused.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Sequence
from ctypes import c_int64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from novacron.kernels.native.library import (
    REQUESTS,
    ROWS,
    Call,
    GroupLost,
    NativeContext,
    Operation,
    ProgramStruct,
    Sizing,
)
from novacron.kernels.pages import zero_pages
from novacron.kernels.recorded import NotRecordable

_ALIGNMENT_BYTES = 64


class NativeProgram:
    """The calls of a computation and the buffers they work on. Implements Recorded."""

    def __init__(self, context: NativeContext, recorder: _Recorder, result: Tensor) -> None:
        """`context` has the threads that run it."""
        self.result = result
        self._context = context
        self._run = context.library.novacron_run
        self._buffers = recorder.buffers
        self._calls = (ctypes.c_char * len(recorder.calls)).from_buffer(recorder.calls)
        self._operations = (Operation * len(recorder.operations))(*recorder.operations)
        self._sizings = (Sizing * len(recorder.sizings))(*recorder.sizings)
        self._program = ProgramStruct(
            ctypes.addressof(self._calls),
            self._operations,
            self._sizings,
            len(self._operations),
            len(self._sizings),
        )
        self._sizes = (c_int64 * 2)()

    @property
    def buffer_bytes(self) -> int:
        """Memory for results, of which small runs touch only the beginnings."""
        return self._buffers.num_bytes

    def run(self, num_rows: int, num_requests: int = 0) -> None:
        self._sizes[ROWS], self._sizes[REQUESTS] = num_rows, num_requests
        if self._run(self._context.pointer, self._program, self._sizes):
            raise GroupLost


def record(
    context: NativeContext,
    compute: Callable[[], Tensor],
    *,
    max_rows: int,
    max_requests: int = 0,
    runs_on: NativeContext | None = None,
) -> NativeProgram:
    """`context` is what `compute` calls; another one of its level may run the program."""
    recorder = _Recorder({ROWS: max_rows, REQUESTS: max_requests})
    usual, context.stream = context.stream, recorder
    try:
        with _NothingButViews():  # type: ignore[no-untyped-call]
            result = compute()
    finally:
        context.stream = usual
    return NativeProgram(runs_on or context, recorder, result)


class _Recorder:
    """A Stream that writes down what it is given."""

    def __init__(self, largest: dict[int, int]) -> None:
        self.calls = bytearray()
        self.operations: list[Operation] = []
        self.sizings: list[Sizing] = []
        self.buffers = _Buffers()
        self._largest = largest

    def submit(self, call: Call) -> None:
        offset = len(self.calls)
        for field, size in call.sizes.items():
            if getattr(call, field) != self._largest[size]:
                raise NotRecordable(f"{type(call).__name__}.{field} is no size of the step")
            self.sizings.append(Sizing(offset + getattr(type(call), field).offset, size))
        self.operations.append(Operation(call.kind, offset))
        self.calls += bytes(call)
        self.calls += bytes(-len(self.calls) % _ALIGNMENT_BYTES)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self.buffers.empty(shape, dtype)


class _Buffers:
    """Memory that tensors share one after the other, taken from the system page by page as it is
    written to: most steps are far smaller than the largest."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        buffer = self._take(num_bytes)
        lent = buffer[:num_bytes]
        tensor = torch.frombuffer(lent, dtype=dtype)  # it, and every view of it, holds `lent`
        weakref.finalize(lent, self._free.append, buffer).atexit = False
        return tensor.view(*shape)

    def _take(self, num_bytes: int) -> NDArray[np.uint8]:
        """The smallest free buffer that is large enough, or a new one."""
        fitting = [
            (buffer.nbytes, place)
            for place, buffer in enumerate(self._free)
            if buffer.nbytes >= num_bytes
        ]
        if fitting:
            return self._free.pop(min(fitting)[1])
        self.num_bytes += num_bytes
        pages: NDArray[np.uint8] = zero_pages((num_bytes,), torch.uint8).numpy()
        return pages


class _NothingButViews(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what torch would compute by itself."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; saying so, torch would import all of its compiler first, which
        is a third of the time that a server takes to start."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            raise NotRecordable(f"{func} is computed by PyTorch")
        return func(*args, **(kwargs or {}))
