from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.kernels.linear import Linear, Quantization
from novacron.kernels.table import TORCH_KERNELS
from novacron.kernels.torch_linear import torch_linear
from novacron.models.checkpoint import Checkpoint
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.hf_config import read_hf_config
from novacron.models.layers import matrix as matrix_module
from novacron.models.layers.matrix import Matrix
from novacron.models.loading import load_weights
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup

Write = Callable[..., Path]


def load(
    folder: Path,
    *,
    group: ParallelGroup = SINGLE,
    dtype: torch.dtype = torch.float32,
    quantization: Quantization | None = None,
    linear: Callable[[Tensor, Quantization | None], Linear] = torch_linear,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Decoder:
    hf_config = read_hf_config(folder)
    _, family = find_family(hf_config)
    decoder = build_decoder(
        family.read_config(hf_config),
        group,
        LocalCommunicator(),
        replace(TORCH_KERNELS, linear=linear),
        precision=WeightPrecision.uniform(quantization),
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


INT4 = Quantization(4, 32)


def test_layers_are_rounded_as_asked_and_the_vocabulary_to_eight_bits(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    decoder = load(write_checkpoint(tensors), quantization=INT4)
    vocabulary = {decoder.embedding.matrix, decoder.output.matrix}
    for matrix in decoder.matrices:
        assert matrix.quantization == (Quantization(8, 32) if matrix in vocabulary else INT4)
    ids = torch.tensor([0, 5])
    embedded = torch_linear(tensors["model.embed_tokens.weight"], Quantization(8, 32)).rows(ids)
    assert torch.equal(decoder.embedding(ids), embedded)


def test_the_bytes_of_rounded_weights_are_known_before_loading(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    """A group of 32 takes 16 bytes and a scale of 2 in int4; norms stay as they are."""
    whole = load(write_checkpoint(tensors))
    rounded = load(write_checkpoint(tensors), quantization=INT4)
    norms = whole.weight_bytes - sum(matrix.final_bytes(TORCH_KERNELS) for matrix in whole.matrices)

    def groups(matrix: Matrix) -> int:
        return matrix.shape[0] * -(-matrix.shape[1] // 32)

    assert rounded.num_parameters == whole.num_parameters
    assert rounded.weight_bytes == norms + sum(
        groups(matrix) * (18 if matrix.role == "layer" else 34) for matrix in rounded.matrices
    )


def test_a_matrix_gives_its_memory_back_when_it_is_finished(
    tensors: dict[str, Tensor], write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: set[int] = set()
    held_at_finish: list[int] = []

    def counted_pages(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        memory = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)[:]
        held.add(id(memory))
        weakref.finalize(memory, held.discard, id(memory))
        return torch.frombuffer(memory, dtype=dtype).view(shape)

    def linear(weight: Tensor, quantization: Quantization | None) -> Linear:
        held_at_finish.append(len(held))
        return torch_linear(weight, quantization)

    monkeypatch.setattr(matrix_module, "empty_pages", counted_pages)
    decoder = load(write_checkpoint(tensors), quantization=INT4, linear=linear)
    count = len(decoder.matrices)
    assert held_at_finish == list(range(count, 0, -1))
    assert not held


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


def test_a_bias_that_the_model_has_not_may_be_zero(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    tensors[NAME.replace("weight", "bias")] = torch.zeros(24)
    load(write_checkpoint(tensors))
    tensors[NAME.replace("weight", "bias")][3] = 1e-4
    with pytest.raises(ModelLoadError, match=r"no use for: model.layers.1.mlp.up_proj.bias"):
        load(write_checkpoint(tensors))


def test_tensors_without_use_are_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    """Weights that would be left out change what the model says."""
    for index in range(10):
        tensors[f"model.layers.0.adapter.{index}"] = torch.ones(1)
    with pytest.raises(ModelLoadError) as caught:
        load(write_checkpoint(tensors))
    assert "model.layers.0.adapter.0, " in str(caught.value)
    assert "and 2 more" in str(caught.value)
