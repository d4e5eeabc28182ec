"""Which layers hold their keys and values in which precision: `kv_cache_dtype_layers`.

An entry is LAYERS=DTYPE, where LAYERS is an index or a slice as in Python: "0=bf16" the first
layer, "-2:=bf16" the last two, "4:8=int4" four of them. Where entries overlap, the last one counts.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

from novacron.errors import ConfigError

KVDtype = Literal["float32", "bfloat16", "float16", "int8", "fp8", "int4"]

_DTYPES: dict[str, KVDtype] = {
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "int8": "int8",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "int4": "int4",
}
_ENTRY = re.compile(r"(?P<first>-?\d+)?(?P<colon>:)?(?P<last>-?\d+)?=(?P<dtype>\w+)")


class KVPrecision(Protocol):
    """The part of CacheConfig that is read here."""

    @property
    def kv_cache_dtype(self) -> str: ...
    @property
    def kv_cache_dtype_layers(self) -> tuple[str, ...]: ...


def check_kv_precision(cache: KVPrecision) -> None:
    """Raises ConfigError if a name is not one of a precision, or an entry is not one."""
    if cache.kv_cache_dtype not in ("auto", *_DTYPES):
        raise ConfigError(
            f"kv_cache_dtype is {cache.kv_cache_dtype!r}: choose auto, {', '.join(_DTYPES)}"
        )
    for entry in cache.kv_cache_dtype_layers:
        _parse(entry)


def choose_kv_dtypes(
    cache: KVPrecision, num_layers: int, model_dtype: KVDtype
) -> tuple[KVDtype, ...]:
    """The precision of each layer; "auto" is the model's. Raises ConfigError if an entry names no
    layer of the model."""
    default = model_dtype if cache.kv_cache_dtype == "auto" else _DTYPES[cache.kv_cache_dtype]
    chosen = [default] * num_layers
    for entry in cache.kv_cache_dtype_layers:
        layers, dtype = _parse(entry)
        named = range(num_layers)[layers]
        if not named:
            raise ConfigError(
                f"kv_cache_dtype_layers has '{entry}', which is no layer of this model: it has "
                f"{num_layers}, 0 to {num_layers - 1}."
            )
        for layer in named:
            chosen[layer] = dtype
    return tuple(chosen)


def _parse(entry: str) -> tuple[slice, KVDtype]:
    found = _ENTRY.fullmatch(entry.strip())
    if (
        found is None
        or found["dtype"].lower() not in _DTYPES
        or (found["colon"] is None and (found["first"] is None or found["last"] is not None))
    ):
        raise ConfigError(
            f"kv_cache_dtype_layers has '{entry}': give LAYERS=DTYPE, for example 0=bf16 or "
            f"-2:=bf16. LAYERS is an index or a slice as in Python, DTYPE one of "
            f"{', '.join(_DTYPES)}."
        )
    first = None if found["first"] is None else int(found["first"])
    last = None if found["last"] is None else int(found["last"])
    if found["colon"] is None:
        assert first is not None
        last = None if first == -1 else first + 1
    return slice(first, last), _DTYPES[found["dtype"].lower()]
