"""The parts of a model whose precision can be chosen one by one.

A unit is a matrix as the decoder multiplies with it: what is fused at load is rounded together. The
experts of a layer are one unit, however many they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from novacron.config.weight_layers import precision_name
from novacron.models.decoder import Decoder
from novacron.models.layers.matrix import Matrix
from novacron.quantization.components import component_of
from novacron.quantization.levels import usual_group_size

_MIXED = "of several kinds"
_EXPERT = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class Unit:
    """`patterns` match the names of its matrices in a Llama checkpoint, as the overrides of a
    PrecisionMap do; `places` are where their modules are in the decoder."""

    patterns: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people: "model.layers.0.self_attn.q_proj+k_proj+v_proj"."""
        first, *others = (pattern.removesuffix(".weight") for pattern in self.patterns)
        return "+".join([first, *(other.rpartition(".")[2] for other in others)])


def units_of(decoder: Decoder) -> tuple[Unit, ...]:
    """In the decoder's order. What no level is for (a router) is in none."""
    places: dict[tuple[str, ...], list[str]] = {}
    for place, matrix in decoder.named_modules():
        if isinstance(matrix, Matrix) and any(map(component_of, matrix.names)):
            patterns = tuple(_EXPERT.sub(".experts.*.", name) for name in matrix.names)
            places.setdefault(patterns, []).append(place)
    return tuple(Unit(patterns, tuple(found)) for patterns, found in places.items())


def matrices_of_unit(decoder: Decoder, unit: Unit) -> Iterator[Matrix]:
    for place in unit.places:
        found = decoder.get_submodule(place)
        assert isinstance(found, Matrix)
        yield found


def share(decoder: Decoder, source: Decoder, unit: Unit) -> None:
    """Have a decoder compute with what another one of the same model holds for the unit. A captured
    step would not notice."""
    pairs = zip(matrices_of_unit(decoder, unit), matrices_of_unit(source, unit), strict=True)
    for matrix, other in pairs:
        matrix.product, matrix.table = other.product, other.table


def precision_names(decoder: Decoder, unit: Unit, group_size: int | None) -> tuple[str, ...]:
    """Every name that the precision of the unit goes by as overrides have it: int8/128, and int8
    where that is what int8 means (`group_size`, None: the usual). Empty if it is not rounded."""
    forms = {(matrix.quantization, matrix.shape[1]) for matrix in matrices_of_unit(decoder, unit)}
    if len({form for form, _ in forms}) > 1:
        return (_MIXED,)
    form, num_inputs = next(iter(forms))
    if form is None:
        return ()
    if form.is_float:
        return (form.level,)
    named = precision_name(form.level, form.group_size)
    usual = group_size or usual_group_size(form.level, num_inputs)
    return (form.level, named) if form.group_size == usual else (named,)
