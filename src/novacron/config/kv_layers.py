"""The precision of cached keys and values: `kv_cache_dtype`, `kv_cache_dtype_layers`.

A precision is DTYPE for keys and values alike, or KEYS/VALUES: "int8", "int8/int4", "bf16/int8".
"auto" is what the profile of the weights has (quantization/kv_precision.py), else the model's own,
in both places too: "auto/int8".

An entry of layers is LAYERS=PRECISION, where LAYERS is an index or a slice as in Python: "0=bf16"
the first layer, "-2:=bf16" the last two, "4:8=int8/int4" four of them. Where entries overlap, the
last one counts.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, Protocol

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
_AUTO = "auto"
_ENTRY = re.compile(r"(?P<first>-?\d+)?(?P<colon>:)?(?P<last>-?\d+)?=(?P<precision>[\w/]+)")


class KVPrecision(NamedTuple):
    """Of one layer."""

    key: KVDtype
    value: KVDtype


class KVSettings(Protocol):
    """The part of CacheConfig that is read here."""

    @property
    def kv_cache_dtype(self) -> str: ...
    @property
    def kv_cache_dtype_layers(self) -> tuple[str, ...]: ...


def is_kv_precision(text: str) -> bool:
    """Whether it is DTYPE or KEYS/VALUES."""
    return _names(text) is not None


def check_kv_precision(cache: KVSettings) -> None:
    """Raises ConfigError if a name is not one of a precision, or an entry is not one."""
    if _names(cache.kv_cache_dtype) is None:
        raise ConfigError(
            f"kv_cache_dtype is {cache.kv_cache_dtype!r}: choose {_AUTO}, {', '.join(_DTYPES)}, or "
            "two of them as KEYS/VALUES, for example int8/int4"
        )
    for entry in cache.kv_cache_dtype_layers:
        _parse(entry)


def choose_kv_dtypes(
    cache: KVSettings, num_layers: int, auto: KVPrecision
) -> tuple[KVPrecision, ...]:
    """The precision of each layer, where "auto" means `auto`. Raises ConfigError if an entry names
    no layer of the model."""
    default = _names(cache.kv_cache_dtype)
    assert default is not None  # checked when the settings were made
    chosen = [_precision(default, auto)] * num_layers
    for entry in cache.kv_cache_dtype_layers:
        layers, names = _parse(entry)
        named = range(num_layers)[layers]
        if not named:
            raise ConfigError(
                f"kv_cache_dtype_layers has '{entry}', which is no layer of this model: it has "
                f"{num_layers}, 0 to {num_layers - 1}."
            )
        for layer in named:
            chosen[layer] = _precision(names, auto)
    return tuple(chosen)


_Names = tuple[str, str]  # of the precision of keys and of values


def _names(text: str) -> _Names | None:
    key, slash, value = text.strip().lower().partition("/")
    names = key, value if slash else key
    return names if all(name == _AUTO or name in _DTYPES for name in names) else None


def _precision(names: _Names, auto: KVPrecision) -> KVPrecision:
    key, value = (
        kind if name == _AUTO else _DTYPES[name] for name, kind in zip(names, auto, strict=True)
    )
    return KVPrecision(key, value)


def _parse(entry: str) -> tuple[slice, _Names]:
    found = _ENTRY.fullmatch(entry.strip())
    names = None if found is None else _names(found["precision"])
    if (
        found is None
        or names is None
        or (found["colon"] is None and (found["first"] is None or found["last"] is not None))
    ):
        raise ConfigError(
            f"kv_cache_dtype_layers has '{entry}': give LAYERS=DTYPE or LAYERS=KEYS/VALUES, for "
            "example 0=bf16 or -2:=bf16/int8. LAYERS is an index or a slice as in Python, a DTYPE "
            f"one of {_AUTO}, {', '.join(_DTYPES)}."
        )
    first = None if found["first"] is None else int(found["first"])
    last = None if found["last"] is None else int(found["last"])
    if found["colon"] is None:
        assert first is not None
        last = None if first == -1 else first + 1
    return slice(first, last), names
