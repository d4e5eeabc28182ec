"""The shared library of csrc/, loaded through ctypes: csrc/api.h in Python.

A call releases the GIL. The library may be missing (it was installed without a C++ compiler) or be
of another version than this file; both are said once, by `NativeLibrary.load`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from novacron.config.kv_layers import KVDtype
from novacron.errors import ConfigError

PATH = Path(__file__).parent / "libnovacron_kernels.so"

_ABI_VERSION = 15

DATA_TYPES = {torch.float32: 0, torch.bfloat16: 1}
KV_FORMATS: dict[KVDtype, int] = {
    "float32": 0,
    "bfloat16": 1,
    "float16": 2,
    "int8": 3,
    "fp8": 4,
    "int4": 5,
}
INT8, INT4, FLOAT8 = 2, 3, 4  # of weights only
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2}
SCALE, SOFTCAP = 0, 1  # functions of a MapCall
STORE, ATTEND = 1, 2  # parts of an AttentionCall

# The sizes of a step that calls depend on: how many rows their tensors have (the step's tokens, or
# those whose logits are wanted), and how many requests have a part in it.
ROWS, REQUESTS = 0, 1


class NativeUnavailable(Exception):
    """Why there are no native kernels here, as a sentence."""


class GroupLost(ConnectionError):
    """An operation that ranks do together did not succeed: RankGroup.loss tells why."""


class Call(Structure):
    """The arguments of one operation. `kind` is its number in OperationKind; `sizes` names the
    fields that are sizes of the step, and which."""

    kind: ClassVar[int]
    sizes: ClassVar[dict[str, int]]


class PackCall(Structure):
    """The one thing that is done only at load, and never recorded."""

    _fields_ = (
        *((name, c_void_p) for name in ("weights", "packed")),
        *((name, c_int64) for name in ("outputs", "inputs", "stride")),
        *((name, c_int32) for name in ("type", "weight_type", "group")),
    )


class LinearCall(Call):
    kind, sizes = 0, {"rows": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("x", "weights", "bias", "residual", "out")),
        *((name, c_int64) for name in ("rows", "outputs", "inputs")),
        *((name, c_int64) for name in ("x_stride", "residual_stride", "out_stride")),
        *((name, c_int32) for name in ("type", "out_type", "weight_type")),
        *((name, c_int32) for name in ("group", "input_group", "segments")),
    )


class NormCall(Call):
    kind, sizes = 1, {"outer": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("x", "weight", "residual", "out")),
        *((name, c_int64) for name in ("outer", "inner", "size", "outer_stride", "inner_stride")),
        ("epsilon", c_float),
        *((name, c_int32) for name in ("type", "weight_type")),
    )


class RotateCall(Call):
    kind, sizes = 2, {"tokens": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("x", "cosine", "sine", "positions", "out")),
        *((name, c_int64) for name in ("tokens", "heads", "head_dim", "rotary_dim")),
        *((name, c_int64) for name in ("token_stride", "head_stride")),
        ("type", c_int32),
    )


class GatedCall(Call):
    kind, sizes = 3, {"rows": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("x", "out")),
        *((name, c_int64) for name in ("rows", "size", "x_stride")),
        *((name, c_int32) for name in ("type", "activation")),
    )


class KVCache(Structure):
    """The cached keys, or values, of a layer."""

    _fields_ = (
        ("blocks", c_void_p),
        *((name, c_int64) for name in ("head_stride", "block_stride")),
        ("format", c_int32),
    )


class AttentionCall(Call):
    kind, sizes = 4, {"num_tokens": ROWS, "num_rows": REQUESTS}
    _fields_ = (
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((name, c_void_p) for name in ("out", "rows", "block_tables", "slots")),
        *((name, KVCache) for name in ("key_cache", "value_cache")),
        *((name, c_int64) for name in ("num_rows", "num_tokens", "num_heads", "num_kv_heads")),
        *((name, c_int64) for name in ("head_dim", "block_size", "table_stride")),
        *((name, c_int64) for name in ("query_token_stride", "query_head_stride")),
        *((name, c_int64) for name in ("key_token_stride", "key_head_stride")),
        *((name, c_int64) for name in ("value_token_stride", "value_head_stride")),
        ("window", c_int64),
        *((name, c_float) for name in ("scale", "softcap")),
        *((name, c_int32) for name in ("type", "parts")),
    )


class LookupCall(Call):
    kind, sizes = 5, {"rows": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("table", "ids", "out")),
        *((name, c_int64) for name in ("rows", "size", "first_id", "num_ids")),
        *((name, c_int32) for name in ("type", "weight_type", "group", "is_packed")),
    )


class MapCall(Call):
    kind, sizes = 6, {"rows": ROWS}
    _fields_ = (
        ("x", c_void_p),
        *((name, c_int64) for name in ("rows", "size", "stride")),
        ("operand", c_float),
        *((name, c_int32) for name in ("type", "function")),
    )


# How Python exchanges what belongs to so many rows, from amid a call; 0, or 1: a rank is lost. Who
# submits a call with one keeps it.
ExchangeFunction = CFUNCTYPE(c_int32, c_int64)


class AddPartialsCall(Call):
    kind, sizes = 8, {"rows": ROWS}
    _fields_ = (
        ("group", c_void_p),
        ("exchange", ExchangeFunction),
        *((name, c_void_p) for name in ("partials", "bias", "residual", "out")),
        *((name, c_int64) for name in ("rows", "size")),
        *((name, c_int64) for name in ("rank_stride", "residual_stride", "out_stride")),
        *((name, c_int32) for name in ("type", "ranks")),
    )


class MeetCall(Call):
    kind, sizes = 9, {"rows": ROWS}
    _fields_ = (
        ("group", c_void_p),
        ("exchange", ExchangeFunction),
        *((name, c_void_p) for name in ("source", "target")),
        *((name, c_int64) for name in ("rows", "row_bytes")),
    )


class ExpertsCall(Call):
    kind, sizes = 7, {"rows": ROWS}
    _fields_ = (
        *((name, c_void_p) for name in ("x", "router_logits")),
        *((name, POINTER(LinearCall)) for name in ("gate_up", "down")),
        *((name, c_void_p) for name in ("shared", "shared_logits", "residual", "out")),
        *((name, c_void_p) for name in ("rows_of_pairs", "gate_up_of_pairs", "activated_of_pairs")),
        ("partials", POINTER(AddPartialsCall)),
        ("own_partials", c_void_p),
        *((name, c_int64) for name in ("rows", "size", "ffn_size")),
        *((name, c_int64) for name in ("num_experts", "experts_per_token")),
        *((name, c_int32) for name in ("type", "activation", "renormalize")),
    )


class SampleCall(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("logits", "rows", "tokens", "peaks")),
        *((name, c_int64) for name in ("num_rows", "vocab_size", "stride")),
    )


class CopyCall(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("sources", "targets", "heads", "sums")),
        *((name, c_int64) for name in ("count", "block_bytes", "head_bytes", "is_streamed")),
    )


class KVCodecCall(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("block", "scales", "codes", "errors")),
        *((name, c_int64) for name in ("num_parts", "part_stride", "num_heads", "num_tokens")),
        *((name, c_int64) for name in ("head_dim", "cell", "group")),
        *((name, c_int32) for name in ("type", "code", "is_key", "is_encoding")),
    )


class Operation(Structure):
    _fields_ = (("kind", c_int64), ("offset", c_int64))


class Sizing(Structure):
    _fields_ = (("offset", c_int64), ("size", c_int64))


class TrafficStruct(Structure):
    _fields_ = tuple((name, c_uint64) for name in ("meetings", "bytes", "waited_ns"))


class ProgramStruct(Structure):
    _fields_ = (
        ("calls", c_void_p),
        ("operations", POINTER(Operation)),
        ("sizings", POINTER(Sizing)),
        *((name, c_int64) for name in ("num_operations", "num_sizings")),
    )


# What each operation is called; those of _CAN_FAIL return 1 if the group of ranks is lost.
_OPERATIONS: dict[type[Call], str] = {
    LinearCall: "novacron_linear",
    NormCall: "novacron_rms_norm",
    RotateCall: "novacron_rotate",
    GatedCall: "novacron_gated",
    AttentionCall: "novacron_attend",
    LookupCall: "novacron_lookup",
    MapCall: "novacron_map",
    ExpertsCall: "novacron_mix_experts",
    AddPartialsCall: "novacron_add_partials",
    MeetCall: "novacron_meet",
}
_CAN_FAIL = (ExpertsCall, AddPartialsCall, MeetCall)

_FUNCTIONS = {
    "novacron_abi_version": (c_int32, ()),
    "novacron_levels": (c_char_p, ()),
    "novacron_open": (c_void_p, (c_char_p, c_int32)),
    "novacron_close": (None, (c_void_p,)),
    "novacron_kv_block_bytes": (c_int64, (c_int32, c_int64, c_int64)),
    "novacron_sample": (None, (c_void_p, POINTER(SampleCall))),
    "novacron_copy_blocks": (None, (c_void_p, POINTER(CopyCall))),
    "novacron_packed_bytes": (c_int64, (c_int32, c_int32, c_int64, c_int64)),
    "novacron_pack": (None, (c_void_p, POINTER(PackCall))),
    "novacron_code_kv": (None, (c_void_p, POINTER(KVCodecCall))),
    "novacron_run": (c_int32, (c_void_p, POINTER(ProgramStruct), POINTER(c_int64))),
    "novacron_group_bytes": (c_int64, (c_int32,)),
    "novacron_join": (c_void_p, (c_void_p, c_int32, c_int32, c_double)),
    "novacron_leave": (None, (c_void_p,)),
    "novacron_give_up": (None, (c_void_p,)),
    "novacron_begin_anew": (None, (c_void_p,)),
    "novacron_reset": (None, (c_void_p,)),
    "novacron_traffic": (None, (c_void_p, c_int32, POINTER(TrafficStruct))),
    "novacron_loss": (c_int32, (c_void_p, POINTER(c_int32))),
    **{
        name: (c_int32 if call in _CAN_FAIL else None, (c_void_p, POINTER(call)))
        for call, name in _OPERATIONS.items()
    },
}


@cache
def _load(path: Path) -> ctypes.CDLL:
    if not path.exists():
        raise NativeUnavailable(
            "this installation has no native kernels: it was made without a C++ compiler"
        )
    try:
        library = ctypes.CDLL(str(path))
        version = library.novacron_abi_version()
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(f"{path} cannot be loaded: {error}") from error
    if version != _ABI_VERSION:
        raise NativeUnavailable(
            f"{path} is of another version of NovaCron ({version}, not {_ABI_VERSION})"
        )
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def native_levels(path: Path = PATH) -> tuple[str, ...]:
    """The levels (instruction sets) that the library and this machine have, best last.

    Raises NativeUnavailable.
    """
    names: bytes = _load(path).novacron_levels()
    return tuple(names.decode().split())


class Stream(Protocol):
    """Where operations go, and where the memory of their results comes from."""

    def submit(self, call: Call) -> None:
        """Have the operation computed after those before it. `call` may change afterwards; what it
        points to must not go away."""
        ...

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory for a result."""
        ...


class _Immediate:
    """Computes an operation when it is submitted."""

    def __init__(self, library: ctypes.CDLL, pointer: c_void_p) -> None:
        self._pointer = pointer
        self._functions = {call: getattr(library, name) for call, name in _OPERATIONS.items()}

    def submit(self, call: Call) -> None:
        if self._functions[type(call)](self._pointer, byref(call)):
            raise GroupLost

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)


class NativeContext:
    """A level of the library with a thread pool of `num_threads`, the caller's among them.

    Operations are given to `stream`, which program.py exchanges to record them.

    Raises NativeUnavailable, and ConfigError for a level that is not there.
    """

    def __init__(self, num_threads: int, level: str | None = None, *, path: Path = PATH) -> None:
        self.library = _load(path)
        levels = native_levels(path)
        self.level = levels[-1] if level is None else level
        self.num_threads = num_threads
        pointer = self.library.novacron_open(self.level.encode(), num_threads)
        if pointer is None:
            raise ConfigError(
                f"There are no kernels for '{level}' on this machine; there are: "
                f"{', '.join(levels)}."
            )
        self.pointer = c_void_p(pointer)
        self.stream: Stream = _Immediate(self.library, self.pointer)

    def __del__(self) -> None:
        pointer = self.__dict__.pop("pointer", None)
        if pointer is not None:
            self.library.novacron_close(pointer)
