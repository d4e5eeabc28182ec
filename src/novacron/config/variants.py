"""Further precisions of the model that a server loads beside the main one: `variants`.

An entry is QUANTIZATION or QUANTIZATION:KV_CACHE_DTYPE: "int8", "none", "int4:int8/int4". It is the
name of the variant too. Without a KV precision it has the main variant's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from novacron.config.kv_layers import is_kv_precision
from novacron.errors import ConfigError

Quantization = Literal[
    "none", "fp32", "fp16", "bf16", "fp8", "int8", "int4",
    "memory_critical", "balanced", "quality_critical",
]  # fmt: skip

QUANTIZATIONS: dict[str, Quantization] = {name: name for name in get_args(Quantization)}


@dataclass(frozen=True)
class Variant:
    """A precision of weights, and one of keys and values; empty: that of the main variant. `layers`
    are the matrices of another precision, which only the main variant can have."""

    quantization: Quantization
    kv_cache_dtype: str = ""
    layers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ":".join(filter(None, (self.quantization, self.kv_cache_dtype)))


def parse_variants(entries: tuple[str, ...]) -> tuple[Variant, ...]:
    """In the order given. Raises ConfigError if an entry is not one, or stands there twice."""
    variants = tuple(map(_parse, entries))
    for place, variant in enumerate(variants):
        if variant in variants[:place]:
            raise ConfigError(f"variants has '{variant.name}' twice: name each precision once.")
    return variants


def _parse(entry: str) -> Variant:
    weights, colon, kv = (part.strip().lower() for part in entry.partition(":"))
    if weights not in QUANTIZATIONS or (colon and not is_kv_precision(kv)):
        raise ConfigError(
            f"variants has '{entry}': give QUANTIZATION or QUANTIZATION:KV_CACHE_DTYPE, for "
            f"example int8 or int4:int8/int4. QUANTIZATION is one of {', '.join(QUANTIZATIONS)}."
        )
    return Variant(QUANTIZATIONS[weights], kv)
