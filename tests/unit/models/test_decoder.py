"""Ranks that run side by side compute what one rank computes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from novacron.kernels.table import TORCH_KERNELS
from novacron.models.checkpoint import Checkpoint
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.hf_config import read_hf_config
from novacron.models.loading import load_weights
from novacron.models.registry import find_family
from novacron.parallel.communicator import CollectiveCommunicator, Communicator
from novacron.parallel.groups import ParallelGroup
from novacron.testing.reference import load_decoder, logits_in_chunks
from novacron.testing.tiny_models import make_tiny_model

CPU = torch.device("cpu")
Result = TypeVar("Result")


class ThreadCommunicator(CollectiveCommunicator):
    """Ranks are threads that meet at a barrier and leave their tensors in a shared list."""

    def __init__(self, rank: int, tensors: list[Tensor], barrier: threading.Barrier) -> None:
        super().__init__(rank)
        self._tensors, self._barrier = tensors, barrier

    def _exchange(self, x: Tensor) -> list[Tensor]:
        self._tensors[self._rank] = x.clone()
        self._barrier.wait(timeout=30)
        everyone = list(self._tensors)
        self._barrier.wait(timeout=30)
        return everyone

    def all_reduce(self, x: Tensor) -> Tensor:
        return torch.stack(self._exchange(x)).sum(0)


def on_ranks(size: int, work: Callable[[ParallelGroup, Communicator], Result]) -> list[Result]:
    """Run `work` once per rank, all at the same time."""
    tensors, barrier = [torch.empty(0)] * size, threading.Barrier(size)
    results: dict[int, Result] = {}

    def run(rank: int) -> None:
        communicator = ThreadCommunicator(rank, tensors, barrier)
        results[rank] = work(ParallelGroup(rank, size), communicator)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]


def load_rank(folder: Path, group: ParallelGroup, communicator: Communicator) -> Decoder:
    hf_config = read_hf_config(folder)
    _, family = find_family(hf_config)
    decoder = build_decoder(
        family.read_config(hf_config),
        group,
        communicator,
        TORCH_KERNELS,
        dtype=torch.float32,
        device=CPU,
    )
    load_weights(decoder, Checkpoint(folder), family, lambda fraction: None)
    return decoder


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3", "qwen2_moe"])
def test_four_ranks_compute_what_one_computes(family: str, tmp_path: Path) -> None:
    overrides = {} if family == "qwen2_moe" else {"num_key_value_heads": 2, "vocab_size": 383}
    folder = make_tiny_model(family, tmp_path, **overrides)
    prompt = random.Random(0).choices(range(5, 380), k=40)
    expected = logits_in_chunks(
        load_decoder(folder, CPU, dtype=torch.float32), prompt, [30, 10], max_model_len=64
    )
    decoders = on_ranks(4, lambda group, communicator: load_rank(folder, group, communicator))
    found = on_ranks(4, lambda group, _: logits_of(decoders[group.rank], group, prompt))
    for logits in found:
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def logits_of(decoder: Decoder, group: ParallelGroup, prompt: list[int]) -> Tensor:
    return logits_in_chunks(decoder, prompt, [30, 10], max_model_len=64, group=group)


def test_the_meta_device_takes_no_memory(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    hf_config = read_hf_config(folder)
    _, family = find_family(hf_config)
    config = family.read_config(hf_config)
    group, communicator = ParallelGroup(), ThreadCommunicator(0, [], threading.Barrier(1))
    decoder = build_decoder(
        config, group, communicator, TORCH_KERNELS, dtype=torch.float16, device=torch.device("meta")
    )
    assert decoder.weight_bytes == 2 * decoder.num_parameters
    assert decoder.norm.weight.is_meta
    assert torch.get_default_dtype() == torch.float32
