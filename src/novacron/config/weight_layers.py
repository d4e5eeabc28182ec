"""Which matrices are held in which precision: `quantization_layers`.

An entry is PATTERN=LEVEL, where PATTERN is a glob over the names that matrices have in a Llama
checkpoint, whatever the family: "model.layers.0.*=int8" the first layer, "*.down_proj.weight=int8"
one matrix of each. A star also stands for dots. Where entries overlap, the last one counts. Whole
numbers may have groups of their own: "*=int4/64" is int4 in groups of 64.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from novacron.errors import ConfigError

WeightLevel = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4"]
GROUP_SIZES = (32, 64, 128)
_GROUPED = ("int8", "int4")

_LEVELS: dict[str, WeightLevel] = {
    **{level: level for level in get_args(WeightLevel)},
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "fp8_e4m3": "fp8",
}


class Override(NamedTuple):
    """The level of all matrices whose names `pattern` matches. `group_size`: of theirs, where it is
    not that of the others."""

    pattern: str
    level: WeightLevel
    group_size: int | None = None

    def __str__(self) -> str:
        return f"{self.pattern}={precision_name(self.level, self.group_size)}"


def precision_name(level: WeightLevel, group_size: int | None) -> str:
    """As an entry has it behind its pattern."""
    return level if group_size is None else f"{level}/{group_size}"


def parse_weight_layers(entries: tuple[str, ...]) -> tuple[Override, ...]:
    """In order. Raises ConfigError if an entry is not one."""
    return tuple(map(_parse, entries))


def parse_precision(text: str) -> tuple[WeightLevel, int | None] | None:
    """LEVEL or LEVEL/GROUP; None: it is neither."""
    name, slash, size = text.strip().lower().partition("/")
    level = _LEVELS.get(name)
    if level is None or not slash:
        return None if level is None else (level, None)
    if level not in _GROUPED or size not in map(str, GROUP_SIZES):
        return None
    return level, int(size)


def _parse(entry: str) -> Override:
    pattern, equals, text = (part.strip() for part in entry.rpartition("="))
    found = parse_precision(text)
    if not equals or not pattern or found is None:
        raise ConfigError(
            f"quantization_layers has '{entry}': give PATTERN=LEVEL, for example "
            f"model.layers.0.*=int8 or *.down_proj.weight=int4/64. LEVEL is one of "
            f"{', '.join(get_args(WeightLevel))}; {' and '.join(_GROUPED)} may be followed by the "
            f"size of their groups, {', '.join(map(str, GROUP_SIZES))}."
        )
    return Override(pattern, *found)
