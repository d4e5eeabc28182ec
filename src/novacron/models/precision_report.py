"""What a choice of precision makes of a model on this machine: levels, bytes and reasons.

Made of a decoder without weights (on the device "meta"), so it holds for models of any size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from novacron.models.decoder import Decoder
from novacron.models.weight_precision import WeightPrecision, level_of_dtype
from novacron.quantization.components import Component, component_of
from novacron.quantization.levels import Level
from novacron.quantization.resolution import Holdings, resolve


@dataclass(frozen=True, kw_only=True)
class Part:
    """The matrices of a component, or what else a model has. `wanted` and `held` name levels, the
    most frequent first; `notes` say why they differ."""

    name: str
    wanted: tuple[Level, ...]
    held: tuple[Level, ...]
    num_values: int
    num_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """A matrix of a Llama checkpoint, which is a matrix here or some rows of one."""

    name: str
    wanted: Level
    held: Level
    num_values: int
    num_bytes: int
    note: str


def report_precision(
    decoder: Decoder, precision: WeightPrecision, stored: Level
) -> tuple[Part, ...]:
    """Every part of the model: components in their order, routers, norms. `stored` is the precision
    of the checkpoint. Bytes are those of the kernels, scales and padding included."""
    holdings = Holdings(level_of_dtype(decoder.dtype), stored, decoder.kernels.rounded_levels)
    pieces = list(_pieces(decoder, precision, holdings))
    parts = [
        _part(component, [one for one in pieces if component_of(one.name) == component])
        for component in (*get_args(Component), None)
    ]
    norms = _norms(decoder, precision.levels.level_of_component("norm"), holdings)
    return (*(part for part in parts if part.num_values), norms)


def _pieces(decoder: Decoder, precision: WeightPrecision, holdings: Holdings) -> Iterator[_Piece]:
    for slot in decoder.weight_slots():
        matrix = slot.matrix
        if matrix is None:
            continue
        rows, columns = slot.target.shape
        is_tied = decoder.is_tied(matrix)
        wanted = precision.wanted([slot.name], is_tied=is_tied)
        found = resolve(wanted, holdings)
        held = holdings.computed if matrix.quantization is None else matrix.quantization.level
        note = found.reason
        if is_tied and wanted != precision.levels.level_of(slot.name):
            note = f"the output head, too, which asks for {wanted}" + (note and f"; {note}")
        if held != found.level:
            together = ", ".join(_ending(name) for name in matrix.names)
            note = f"{together} are one product: all have the finest level asked for"
        yield _Piece(
            name=slot.name,
            wanted=wanted or holdings.computed,
            held=held,
            num_values=rows * columns,
            num_bytes=matrix.final_bytes(decoder.kernels) * rows // matrix.shape[0],
            note=note,
        )


def _part(component: Component | None, pieces: list[_Piece]) -> Part:
    return Part(
        name="router" if component is None else component.replace("_", " "),
        wanted=_most_frequent(piece.wanted for piece in pieces),
        held=_most_frequent(piece.held for piece in pieces),
        num_values=sum(piece.num_values for piece in pieces),
        num_bytes=sum(piece.num_bytes for piece in pieces),
        notes=tuple(dict.fromkeys(piece.note for piece in pieces if piece.note)),
    )


def _norms(decoder: Decoder, wanted: Level | None, holdings: Holdings) -> Part:
    matrices = {id(matrix.weight) for matrix in decoder.matrices}
    others = [one for one in decoder.parameters() if id(one) not in matrices]
    found = resolve(wanted, holdings)
    return Part(
        name="norm, bias",
        wanted=(wanted or holdings.computed,),
        held=_most_frequent(level_of_dtype(one.dtype) for one in others),
        num_values=sum(one.numel() for one in others),
        num_bytes=sum(one.nbytes for one in others),
        notes=(found.reason,) if found.reason else (),
    )


def _most_frequent(levels: Iterable[Level]) -> tuple[Level, ...]:
    return tuple(level for level, _ in Counter(levels).most_common())


def _ending(name: str) -> str:
    """model.layers.0.self_attn.q_proj.weight -> q_proj"""
    return name.split(".")[-2]
