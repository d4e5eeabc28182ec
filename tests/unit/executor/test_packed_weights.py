from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.executor.packed_weights import load_or_map_weights
from novacron.kernels.linear import Linear, Quantization
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kernels.native.table import native_kernels
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.model_files import read_model_files
from novacron.models.packed_cache import PackedCache
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.testing.gguf_models import write_gguf
from novacron.testing.reference import logits_in_chunks
from novacron.testing.tiny_models import make_tiny_model


class Loads:
    """Starts of the same model, one after the other, with one cache. Counts what is packed."""

    def __init__(self, model: Path, cache: Path) -> None:
        self.model = model
        self.cache_folder = cache
        self.num_packed = 0
        try:
            self.kernels = native_kernels(NativeContext(1))
        except NativeUnavailable:
            pytest.skip("no native kernels")

    def load(self, quantization: Quantization | None, version: str = "v") -> Tensor:
        usual = self.kernels.linear

        def linear(weight: Tensor, quantization: Quantization | None) -> Linear:
            self.num_packed += 1
            return usual(weight, quantization)

        files = read_model_files(self.model)
        _, family = find_family(files.config)
        decoder = build_decoder(
            family.read_config(files.config),
            SINGLE,
            LocalCommunicator(),
            replace(self.kernels, linear=linear),
            precision=WeightPrecision.uniform(quantization),
            dtype=torch.bfloat16,
            device=torch.device("cpu"),
        )
        cache = _Synchronous(self.cache_folder, 2**30, fewest_bytes=0)
        load_or_map_weights(
            decoder, files.open_weights(), family, lambda fraction: None,
            cache=cache, version=lambda: version,
        )  # fmt: skip
        return _logits(decoder)


class _Synchronous(PackedCache):
    def keep_in_background(self, key: str, contents: Mapping[str, Tensor]) -> threading.Thread:
        thread = super().keep_in_background(key, contents)
        thread.join()
        return thread


def _logits(decoder: Decoder) -> Tensor:
    return logits_in_chunks(decoder, list(range(5, 25)), [20], max_model_len=32)


# untied and tied embeddings, experts, rounded weights
@pytest.fixture(params=["llama", "gemma2", "qwen3_moe", "llama.gguf"])
def loads(request: pytest.FixtureRequest, tmp_path: Path) -> Loads:
    model = make_tiny_model(request.param.removesuffix(".gguf"), tmp_path / "model")
    if request.param.endswith(".gguf"):
        model = write_gguf(model, tmp_path / "model.gguf", "Q8_0")
    return Loads(model, tmp_path / "cache")


@pytest.mark.parametrize("quantization", [None, Quantization(8, 32), Quantization(4, 32)])
def test_a_second_start_packs_nothing(loads: Loads, quantization: Quantization | None) -> None:
    first = loads.load(quantization)
    num_packed = loads.num_packed
    assert num_packed > 0
    assert torch.equal(loads.load(quantization), first)
    assert loads.num_packed == num_packed


def test_other_weights_and_precisions_have_files_of_their_own(tmp_path: Path) -> None:
    loads = Loads(make_tiny_model("llama", tmp_path / "model"), tmp_path / "cache")
    for quantization in (None, Quantization(8, 32), Quantization(8, 64), Quantization(4, 32)):
        before = loads.num_packed
        loads.load(quantization)
        assert loads.num_packed > before
    before = loads.num_packed
    loads.load(None, version="another")
    assert loads.num_packed > before


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    loads = Loads(make_tiny_model("llama", tmp_path / "model"), tmp_path / "cache")
    first = loads.load(Quantization(8, 32))
    [path] = loads.cache_folder.iterdir()
    path.write_bytes(path.read_bytes()[:-5000])
    num_packed = loads.num_packed
    assert torch.equal(loads.load(Quantization(8, 32)), first)
    assert loads.num_packed == 2 * num_packed
    loads.load(Quantization(8, 32))
    assert loads.num_packed == 2 * num_packed
