"""What the other variants on a device need of its memory, and what there was before any of them."""

from __future__ import annotations

from dataclasses import replace

from novacron.config.engine import SharedDevice, SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ModelLoadError
from novacron.executor.blueprint import Blueprint
from novacron.executor.memory_plan import (
    DeviceMemory,
    ModelShape,
    Neighbour,
    size_text,
    step_bytes,
)
from novacron.executor.placement import choose_precision


def before_all(measured: DeviceMemory, free_bytes: int | None, shape: ModelShape) -> DeviceMemory:
    """The device as the first variant found it, so that every one of them, also one that is started
    anew, comes to the same plan. Raises ModelLoadError if the weights do not fit any more."""
    if free_bytes is None:
        return measured
    if shape.weight_bytes > measured.free_bytes:
        raise ModelLoadError(
            f"{shape.name}: the weights take {size_text(shape.weight_bytes)} in {shape.precision}. "
            f"{measured.name} had {size_text(free_bytes)} free before the first variant was "
            f"loaded, and has {size_text(measured.free_bytes)} now. Free some memory, or name "
            "fewer variants."
        )
    return replace(measured, free_bytes=free_bytes)


def draw_neighbours(
    own: Blueprint,
    draft: Blueprint | None,
    shared: SharedDevice,
    model: ModelConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
) -> tuple[Neighbour, ...]:
    """The other variants of the model of `own`, each with a draft model of its own. Reads no
    weights."""
    if not shared.others:
        return ()
    for_draft = for_step = 0
    if draft is not None:
        shape = draft.shape()
        for_draft, for_step = (
            shape.weight_bytes,
            step_bytes(shape, scheduler, SpeculativeConfig()),
        )
    neighbours = []
    for other in shared.others:
        config = replace(model, quantization=other.quantization, quantization_layers=other.layers)
        shape = own.with_precision(choose_precision(config)).shape()
        neighbours.append(
            Neighbour(
                name=other.name,
                weight_bytes=shape.weight_bytes + for_draft,
                step_bytes=step_bytes(shape, scheduler, speculative) + for_step,
            )
        )
    return tuple(neighbours)
