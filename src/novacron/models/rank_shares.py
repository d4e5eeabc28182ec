"""Whether a model can be spread over ranks, so that they give what one rank gives."""

from __future__ import annotations

from collections.abc import Iterator

from novacron.errors import ConfigError
from novacron.models.decoder import Decoder
from novacron.models.decoder_config import DecoderConfig
from novacron.models.layers.matrix import Matrix

_CELL_BYTES = 4  # of neighbouring inputs that products take together


def refuse_uneven_shares(config: DecoderConfig, num_ranks: int) -> None:
    """Raises ConfigError unless every rank gets as many heads and neurons as any other."""
    for what, count in dict(_shared_out(config)).items():
        if count % num_ranks:
            raise _refusal(
                num_ranks, f"the model's {count} {what} cannot be shared out evenly among them"
            )
    heads = config.num_kv_heads
    if heads % num_ranks and num_ranks % heads:
        raise _refusal(
            num_ranks, f"the model's {heads} key-value heads can be neither shared out nor repeated"
        )
    if config.vocab_size < num_ranks:
        raise _refusal(num_ranks, f"the vocabulary has {config.vocab_size} tokens")


def refuse_empty_stages(config: DecoderConfig, num_stages: int) -> None:
    """Raises ConfigError unless every stage of a pipeline gets a layer."""
    if len(config.layers) < num_stages:
        raise ConfigError(
            f"pipeline_parallel_size is {num_stages}, but the model has {len(config.layers)} "
            "layers, and every stage needs one. Choose fewer stages."
        )


def refuse_cut_groups(decoder: Decoder) -> None:
    """Raises ConfigError if a rank's part of a matrix begins or ends amid weights that share a
    scale: rounded for themselves, they would be others than in the whole."""
    for matrix in decoder.matrices:
        if matrix.parts > 1:
            _refuse_cut(matrix)


def _refuse_cut(matrix: Matrix) -> None:
    name, inputs, form = matrix.names[0], matrix.shape[1], matrix.quantization
    if form is None:
        if inputs * matrix.dtype.itemsize % _CELL_BYTES:
            raise _refusal(
                matrix.parts, f"each would hold {inputs} inputs of {name}, an odd number"
            )
        return
    if form.is_float:
        raise _refusal(
            matrix.parts,
            f"{name} is held in fp8, whose scales reach over the inputs of all of them",
            "Choose another quantization.",
        )
    if inputs % form.group_size:
        sizes = [str(size) for size in (128, 64, 32) if inputs % size == 0]
        remedy = f"Set quantization_group_size to {sizes[0]}" if sizes else "Do not round it"
        raise _refusal(
            matrix.parts,
            f"each would hold {inputs} inputs of {name}, but {form.group_size} share a scale",
            f"{remedy}, or choose another number of ranks.",
        )


def _shared_out(config: DecoderConfig) -> Iterator[tuple[str, int]]:
    yield "attention heads", config.num_heads
    for layer in config.layers:
        if layer.moe is None:
            yield "neurons of a feed-forward network", config.ffn_size
        else:
            yield "neurons of an expert", layer.moe.ffn_size
            yield "neurons of the shared expert", layer.moe.shared_ffn_size


def _refusal(
    num_ranks: int, reason: str, remedy: str = "Choose another number of ranks."
) -> ConfigError:
    return ConfigError(f"tensor_parallel_size is {num_ranks}, but {reason}. {remedy}")
