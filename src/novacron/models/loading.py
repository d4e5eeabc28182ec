"""From the files of a model folder to the weights of this rank's decoder.

Every tensor is checked for its shape and for values that are not finite, and goes straight into its
place in the precision of the model. A matrix that is whole is finished at once, which gives back
the memory that it was read into: one matrix at a time needs it. One that is stored in the form that
it is to have is not rounded again (stored_rounding.py). A checkpoint that lacks a tensor, or holds
one that the model has no use for, is refused: such a model would run and give wrong text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.decoder import Decoder
from novacron.models.layers.matrix import Matrix
from novacron.models.registry import Family
from novacron.models.stored_rounding import StoredRounding
from novacron.models.weight_files import WeightFiles
from novacron.models.weight_slots import Source, WeightSlot, index_in_source

# Buffers that older checkpoints saved beside the weights; we compute them.
_BUFFERS = re.compile(r"\.rotary_emb\.inv_freq$|\.masked_bias$")
_NAMES_SHOWN = 8
_VALUES_AT_ONCE = 2**22  # bounds the memory for those that are on their way to another precision


@torch.inference_mode()
def load_weights(
    decoder: Decoder,
    checkpoint: WeightFiles,
    family: Family,
    progress: Callable[[float], None],
    packed: Mapping[str, Tensor] | None = None,
    elsewhere: Iterable[str] = (),
) -> None:
    """Make the decoder ready; `progress` gets the fraction done. With `packed`, what packed_weights
    gave for the same weights, only the rest is read. `elsewhere` are the names of slots that other
    stages fill. Raises ModelLoadError."""
    slots = [(slot, family.source_of(slot.name, decoder.config)) for slot in decoder.weight_slots()]
    for slot, source in slots:
        _check_shape(slot, source, checkpoint)
    wanted = {source.name for _, source in slots}
    wanted.update(family.source_of(name, decoder.config).name for name in elsewhere)
    _check_nothing_is_left(decoder, checkpoint, family, wanted)
    if packed is not None:
        for name, matrix in _matrices_by_name(decoder).items():
            matrix.finish_with(decoder.kernels, packed[name])
        slots = [(slot, source) for slot, source in slots if slot.matrix is None]
    total = sum(slot.target.nbytes for slot, _ in slots)
    done = 0
    left = Counter(slot.matrix for slot, _ in slots)
    slots.reverse()
    stored = StoredRounding(reversed(slots), checkpoint)
    while slots:  # a slot that is done must not keep the memory of its matrix
        slot, source = slots.pop()
        left[slot.matrix] -= 1
        if not stored.finish(slot.matrix, decoder.kernels):
            _fill(slot, source, checkpoint)
            if slot.matrix is not None and left[slot.matrix] == 0:
                slot.matrix.finish(decoder.kernels)
        done += slot.target.nbytes
        progress(done / total)


def packed_weights(decoder: Decoder) -> dict[str, Tensor] | None:
    """What the matrices of a loaded decoder hold, by name, if its kernels can take it up again."""
    packed = {name: matrix.packed for name, matrix in _matrices_by_name(decoder).items()}
    if decoder.kernels.linear_of_packed is None:
        return None
    return {name: tensor for name, tensor in packed.items() if tensor is not None}


def fits(decoder: Decoder, packed: Mapping[str, Tensor]) -> bool:
    """Whether `packed` holds every matrix of the decoder, each in its size."""
    sizes = {
        name: matrix.final_bytes(decoder.kernels)
        for name, matrix in _matrices_by_name(decoder).items()
    }
    return sizes == {name: tensor.nbytes for name, tensor in packed.items()}


def _matrices_by_name(decoder: Decoder) -> dict[str, Matrix]:
    return {name: part for name, part in decoder.named_modules() if isinstance(part, Matrix)}


def _check_shape(slot: WeightSlot, source: Source, checkpoint: WeightFiles) -> None:
    found = checkpoint.shape(source.name)
    expected = (source.num_rows or slot.shape[0], *slot.shape[1:])
    if found != expected:
        raise ModelLoadError(
            f"{checkpoint.file_of(source.name)}: the tensor '{source.name}' has the shape "
            f"{list(found)}, but the configuration asks for {list(expected)}."
        )


def _check_nothing_is_left(
    decoder: Decoder, checkpoint: WeightFiles, family: Family, wanted: Iterable[str]
) -> None:
    left = {
        name
        for name in checkpoint.names.difference(wanted)
        if not name.startswith(family.ignored_prefixes) and not _BUFFERS.search(name)
    }
    if decoder.config.tie_embeddings:  # some files repeat the embedding under this name
        left.discard(family.source_of("lm_head.weight", decoder.config).name)
    # GPTQ's first tools wrote a bias for every matrix, of zeros where the model has none.
    left = {name for name in left if not (name.endswith(".bias") and _is_zero(name, checkpoint))}
    if left:
        names = sorted(left)
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise ModelLoadError(
            f"{checkpoint.file_of(names[0])}: tensors that this architecture has no use for: "
            f"{', '.join(names[:_NAMES_SHOWN])}{more}. The weights do not fit the configuration."
        )


def _is_zero(name: str, checkpoint: WeightFiles) -> bool:
    return not checkpoint.read(name, (slice(None),) * len(checkpoint.shape(name))).any()


def _fill(slot: WeightSlot, source: Source, checkpoint: WeightFiles) -> None:
    rows, *others = index_in_source(slot, source)
    first_row = rows.start or 0
    rows_at_once = max(1, _VALUES_AT_ONCE * len(slot.target) // slot.target.numel())
    for start in range(0, len(slot.target), rows_at_once):
        part = slot.target[start : start + rows_at_once]
        wanted = slice(first_row + start, first_row + start + len(part))
        part.copy_(checkpoint.read(source.name, (wanted, *others)))
    if slot.offset:
        slot.target.add_(slot.offset)
    if not _all_finite(slot.target):
        raise ModelLoadError(
            f"{checkpoint.file_of(source.name)}: the tensor '{source.name}' holds NaN or infinite "
            f"values in {str(slot.target.dtype).removeprefix('torch.')}. The file is damaged, or "
            "the weights need a wider dtype."
        )


def _all_finite(weights: Tensor) -> bool:
    """One pass; NaN and infinities show in the extremes."""
    low, high = torch.aminmax(weights)
    return bool(torch.isfinite(low) & torch.isfinite(high))
