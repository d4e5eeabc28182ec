from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from novacron.kernels.metadata import KVLayer
from novacron.kernels.native.library import NativeUnavailable, native_levels
from novacron.kernels.torch_ops import silu_and_mul
from novacron.models.decoder import Decoder
from novacron.models.layers.feed_forward import FeedForward
from novacron.parallel.groups import SINGLE
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.captured_step import CapturedStep, DecoderStep, EagerStep, capture_step
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats
from novacron.testing.reference import KernelChoice, load_decoder
from novacron.testing.tiny_models import make_tiny_model

CPU = torch.device("cpu")

try:
    HAS_NATIVE = bool(native_levels())
except NativeUnavailable:
    HAS_NATIVE = False

needs_native = pytest.mark.skipif(not HAS_NATIVE, reason="no native kernels")

Parts = tuple[Decoder, Sequence[KVLayer], InputBatch]
Make = Callable[[str, KernelChoice], Parts]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make_parts(family: str, kernels: KernelChoice) -> Parts:
        folder: Path = make_tiny_model(family, tmp_path_factory.mktemp(family))
        decoder = load_decoder(folder, CPU, dtype=torch.float32, kernels=kernels)
        decoder.set_context(64)
        kv_tensors = KVTensors(
            decoder.config,
            SINGLE,
            num_blocks=8,
            block_size=8,
            formats=plain_formats(decoder.config, torch.float32),
            device=CPU,
        )
        batch = InputBatch(
            max_num_seqs=4, max_num_tokens=32, max_model_len=64, block_size=8, device=CPU
        )
        return decoder, kv_tensors.layers, batch

    return make_parts


def logits(step: DecoderStep, batch: InputBatch, places: list[int]) -> torch.Tensor:
    """Of the first step of a request of ten tokens."""
    new = NewRequest("a", tuple(range(10, 20)), 10, SamplingParams(seed=0))
    parts = (ScheduledTokens("a", 0, 10, (3, 1)),)
    output = SchedulerOutput(0, (new,), parts, (), ())
    batch.update(output)
    with torch.inference_mode():
        return step.logits(step.hidden(batch.prepare(output)), places).clone()


@needs_native
@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen2_moe"])
def test_native_steps_are_captured(family: str, make: Make) -> None:
    decoder, cache, batch = make(family, "native")
    step = capture_step(decoder, cache, batch)
    assert isinstance(step, CapturedStep)
    wanted = logits(EagerStep(decoder, cache), batch, list(range(10)))
    assert torch.equal(logits(step, batch, list(range(10))), wanted)
    assert torch.equal(logits(step, batch, [2, 9]), wanted[[2, 9]])


def test_with_torch_each_operation_is_called(make: Make) -> None:
    decoder, cache, batch = make("llama", "torch")
    step = capture_step(decoder, cache, batch)
    assert isinstance(step, EagerStep)
    assert logits(step, batch, [9]).isfinite().all()


@needs_native
def test_what_cannot_be_captured_is_computed_all_the_same(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    decoder, cache, batch = make("llama", "native")
    feed_forward = decoder.layers[0].feed_forward
    assert isinstance(feed_forward, FeedForward)
    feed_forward.activate_and_mul = silu_and_mul  # torch's
    with caplog.at_level("INFO"):
        step = capture_step(decoder, cache, batch)
    assert isinstance(step, EagerStep)
    assert "because aten" in caplog.text
    assert logits(step, batch, [9]).isfinite().all()
