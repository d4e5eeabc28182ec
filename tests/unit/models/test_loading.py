from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.kernels.table import TORCH_KERNELS
from novacron.models.checkpoint import Checkpoint
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.hf_config import read_hf_config
from novacron.models.loading import load_weights
from novacron.models.registry import find_family
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup

Write = Callable[..., Path]


def load(
    folder: Path,
    *,
    group: ParallelGroup = SINGLE,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Decoder:
    hf_config = read_hf_config(folder)
    _, family = find_family(hf_config)
    decoder = build_decoder(
        family.read_config(hf_config),
        group,
        LocalCommunicator(),
        TORCH_KERNELS,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    load_weights(decoder, Checkpoint(folder), family, progress)
    return decoder


def test_every_tensor_arrives(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    fractions: list[float] = []
    decoder = load(write_checkpoint(tensors, num_files=2), progress=fractions.append)
    found = {slot.name: slot.target for slot in decoder.weight_slots()}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_four_ranks_hold_the_whole_between_them(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    folder = write_checkpoint(tensors)
    covered = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for rank in range(4):
        decoder = load(folder, group=ParallelGroup(rank, 4))
        for slot in decoder.weight_slots():
            assert torch.equal(slot.target, tensors[slot.name][slot.index]), slot.name
            covered[slot.name][slot.index] = 1.0
    assert all(bool(places.all()) for places in covered.values())


def test_weights_are_converted(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    decoder = load(write_checkpoint(tensors), dtype=torch.bfloat16)
    assert torch.equal(decoder.output.matrix.weight, tensors["lm_head.weight"].bfloat16())
    assert decoder.weight_bytes == 2 * decoder.num_parameters


def test_a_tied_output_may_be_left_out_or_repeated(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    repeated = load(write_checkpoint(tensors, tie_word_embeddings=True))
    del tensors["lm_head.weight"]
    left_out = load(write_checkpoint(tensors, tie_word_embeddings=True))
    for decoder in (repeated, left_out):
        assert decoder.output is decoder.embedding


def test_saved_buffers_are_ignored(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    load(write_checkpoint(tensors))


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite_are_found(
    value: float, dtype: torch.dtype, tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    tensors[NAME][3, 5] = value
    with pytest.raises(ModelLoadError) as caught:
        load(write_checkpoint(tensors), dtype=dtype)
    assert f"'{NAME}' holds NaN or infinite values" in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_values_that_do_not_fit_the_precision_are_found(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    tensors[NAME][0, 0] = 1e5
    load(write_checkpoint(tensors))
    with pytest.raises(ModelLoadError, match="in float16"):
        load(write_checkpoint(tensors), dtype=torch.float16)


def test_a_wrong_shape_tells_both(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    tensors[NAME] = torch.zeros(25, 16)
    with pytest.raises(ModelLoadError) as caught:
        load(write_checkpoint(tensors))
    message = str(caught.value)
    assert NAME in message
    assert "[25, 16]" in message
    assert "[24, 16]" in message


def test_a_missing_tensor_is_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    del tensors[NAME]
    with pytest.raises(ModelLoadError, match=NAME):
        load(write_checkpoint(tensors))


def test_tensors_without_use_are_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    """Weights that would be left out change what the model says."""
    for index in range(10):
        tensors[f"model.layers.0.adapter.{index}"] = torch.ones(1)
    with pytest.raises(ModelLoadError) as caught:
        load(write_checkpoint(tensors))
    assert "model.layers.0.adapter.0, " in str(caught.value)
    assert "and 2 more" in str(caught.value)
