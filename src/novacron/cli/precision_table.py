"""A PrecisionStudy as a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

from novacron.cli.wording import size
from novacron.executor.precision_study import PrecisionStudy
from novacron.models.precision_report import Part
from novacron.quality.sensitivity import Sensitivity, expected_losses
from novacron.quantization.components import Component

_BF16_BYTES, _FP32_BYTES = 2, 4
_TITLES = ("part", "asked for", "held in", "weights", "bytes", "bits each", "of bf16", "of fp32")
_CACHED: tuple[Component, ...] = ("kv_keys", "kv_values")
_NUM_WORST = 3
_NUM_TEXTS = 3  # columns on the left; the others are numbers


def render(study: PrecisionStudy, measured: Sensitivity | None = None) -> str:
    """`measured`: what its parts lose, if that is known."""
    levels = study.levels
    exceptions = map(str, levels.overrides)
    facts = {
        "Model": study.model,
        "Stored in": study.stored,
        "Computed in": f"{study.computed}, {study.kernels} kernels",
        "Precision": levels.base + "".join(f", but {entry}" for entry in exceptions),
    }
    total = Part(
        name="all", wanted=(), held=(), num_values=study.num_values, num_bytes=study.num_bytes
    )
    lines = [
        *(f"{name:12} {value}" for name, value in facts.items()),
        "",
        *_aligned([_TITLES, *map(_row, (*study.parts, total))]),
        "",
        *_other_values(study),
        *_loss(study, measured),
        *_reasons(study),
    ]
    return "\n".join(lines)


def _row(part: Part) -> tuple[str, ...]:
    values, taken = part.num_values, part.num_bytes
    return (
        part.name,
        ", ".join(part.wanted),
        ", ".join(part.held),
        f"{values:,}",
        size(taken),
        f"{8 * taken / values:.2f}",
        f"{taken / (_BF16_BYTES * values):.0%}",
        f"{taken / (_FP32_BYTES * values):.0%}",
    )


def _aligned(table: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:{'<' if place < _NUM_TEXTS else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)


def _other_values(study: PrecisionStudy) -> Iterator[str]:
    """What is computed, and not stored in the model."""
    kv = study.kv
    keys, values = map(study.levels.level_of_component, _CACHED)
    reason = ""
    if kv.is_chosen:
        reason = "; kv_cache_dtype wins over the profile" if keys else ""
    elif keys:
        reason = f"; asked for: keys {keys}, values {values}"
    yield (
        f"{'KV cache':12} in {kv.precision}: {size(kv.bytes_per_token)} a token, "
        f"{kv.bytes_per_token / kv.plain_bytes_per_token:.0%} of {study.computed}{reason}"
    )
    wanted = study.levels.level_of_component("activations")
    asked = "" if wanted is None else f"; asked for: {wanted}"
    inputs = f"in {study.computed}"
    if any(level in ("int8", "int4") for part in study.parts for level in part.held):
        inputs += "; those of int8 and int4 weights rounded to int8, a scale for each group"
    yield f"{'Inputs':12} {inputs}{asked}"


def _loss(study: PrecisionStudy, measured: Sensitivity | None) -> Iterator[str]:
    """Of the weights. The cache has not been measured part by part."""
    if not any(study.held.values()):
        return
    if measured is None:
        yield (
            f"{'Quality':12} not measured: novacron quantize-plan --sensitivity FILE measures what "
            "each part loses, --sensitivity FILE tells it here; novacron bench accuracy measures "
            "the whole"
        )
        return
    losses = expected_losses(measured, study.held)
    known = {name: loss for name, loss in losses.items() if loss}
    total = sum(known.values())
    text = (
        f"weights lose {_mnat(total)} a token in divergence (KL) from float32, part by part added "
        f"up: quality {math.exp(-total):.4f}"
    )
    worst = sorted(known, key=known.__getitem__, reverse=True)[:_NUM_WORST]
    if worst:
        parts = (f"{name.removeprefix('model.')} {_mnat(known[name])}" for name in worst)
        text += f"; most by {', '.join(parts)}"
    unknown = [name.removeprefix("model.") for name, loss in losses.items() if loss is None]
    if unknown:
        text += f"; without {', '.join(unknown)}, not measured in this precision"
    yield f"{'Quality':12} {text}"
    yield (
        f"{'':12} measured on {measured.num_tokens:,} tokens of {measured.num_documents:,} "
        f"documents ({measured.corpus}); novacron bench accuracy measures the whole"
    )


def _mnat(nats: float) -> str:
    return f"{1000 * nats:.3g} mnat"


def _reasons(study: PrecisionStudy) -> Iterator[str]:
    parts: dict[str, list[str]] = {}
    for part in study.parts:
        for note in part.notes:
            parts.setdefault(note, []).append(part.name)
    if parts:
        yield ""
        yield "Different here from what was asked for:"
        yield from (f"  {'; '.join(names)}: {note}" for note, names in parts.items())
