"""What a profile makes of the KV cache, wherever kv_cache_dtype leaves it open ("auto")."""

from __future__ import annotations

from collections.abc import Mapping

from novacron.config.kv_layers import KVDtype, KVPrecision
from novacron.quantization.levels import ROUNDED, Level
from novacron.quantization.precision_map import PrecisionMap

_DTYPES: Mapping[Level, KVDtype] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "fp8",
    "int8": "int8",
    "int4": "int4",
}


def kv_precision(levels: PrecisionMap, computed: KVDtype) -> KVPrecision:
    """Keys and values of a model that computes in `computed`, with as many bits as its profile has
    for them, and at most those that they are computed in."""
    keys, values = (levels.level_of_component(part) for part in ("kv_keys", "kv_values"))
    return KVPrecision(_held(keys, computed), _held(values, computed))


def _held(wanted: Level | None, computed: KVDtype) -> KVDtype:
    """Numbers that were computed in 16 bits are held as they are: float32 would add nothing, and
    the other 16 bits have another range."""
    if wanted is None or (wanted not in ROUNDED and computed != "float32"):
        return computed
    return _DTYPES[wanted]
