"""What a folder of rounded weights will hold, file by file: decided before a weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from novacron.errors import ConfigError
from novacron.kernels.linear import Quantization
from novacron.models.decoder import Decoder
from novacron.models.registry import Family
from novacron.models.rewriting.compressed_form import stored_parts
from novacron.models.rewriting.safetensors_file import StoredTensor
from novacron.models.weight_files import WeightFiles

_CODES = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "uint8": "U8",
    "int32": "I32", "int64": "I64", "float8_e4m3fn": "F8_E4M3",
}  # fmt: skip


@dataclass(frozen=True)
class Rewrite:
    """One tensor of the source, and what is written of it: itself, or the parts of its rounding."""

    source: str
    quantization: Quantization | None
    tensors: tuple[StoredTensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)


Shard = tuple[Rewrite, ...]


def choose_forms(decoder: Decoder, family: Family) -> Mapping[str, Quantization]:
    """How the tensors of a checkpoint are to be rounded, by their names; others stay. Matrices that
    share a tensor share a product too, and so a form."""
    forms: dict[str, Quantization] = {}
    for slot in decoder.weight_slots():
        if slot.matrix is not None and slot.matrix.quantization is not None:
            source = family.source_of(slot.name, decoder.config).name
            assert forms.setdefault(source, slot.matrix.quantization) == slot.matrix.quantization
    return forms


def plan_shards(
    checkpoint: WeightFiles, forms: Mapping[str, Quantization], shard_bytes: int
) -> tuple[Shard, ...]:
    """In the order of the source's files, so that each of them is read once. Raises ConfigError for
    a matrix that the format has no place for."""
    return tuple(_shards(list(_rewrites(checkpoint, forms)), shard_bytes))


def _rewrites(checkpoint: WeightFiles, forms: Mapping[str, Quantization]) -> Iterator[Rewrite]:
    place = {path: number for number, path in enumerate(checkpoint.files)}
    for name in sorted(checkpoint.names, key=lambda name: (place[checkpoint.file_of(name)], name)):
        shape, quantization = checkpoint.shape(name), forms.get(name)
        if quantization is None:
            code = _CODES.get(checkpoint.dtype_of(name))
            if code is None:
                raise ConfigError(
                    f"{checkpoint.file_of(name)}: the tensor '{name}' is stored as "
                    f"{checkpoint.dtype_of(name)}, which cannot be copied. Take a checkpoint in "
                    "float32, bfloat16 or float16."
                )
            yield Rewrite(name, None, (StoredTensor(name, code, shape),))
            continue
        rows, columns = shape
        if not quantization.is_float and columns % quantization.group_size:
            raise ConfigError(
                f"'{name}' has {columns} inputs, which are no whole groups of "
                f"{quantization.group_size}: files have no place for such. Leave it out with "
                f"--quantization-layers {name}=bf16, or round it at load."
            )
        parts = stored_parts(name.removesuffix(".weight"), (rows, columns), quantization)
        yield Rewrite(name, quantization, parts)


def _shards(rewrites: Sequence[Rewrite], shard_bytes: int) -> Iterator[Shard]:
    shard: list[Rewrite] = []
    filled = 0
    for one in rewrites:
        if shard and filled + one.num_bytes > shard_bytes:
            yield tuple(shard)
            shard, filled = [], 0
        shard.append(one)
        filled += one.num_bytes
    yield tuple(shard)
