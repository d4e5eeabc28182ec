"""The watch over the bundled model: a layer whose weights are 20 % too large is noticed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from novacron.bench.corpus import demo_documents
from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.demo import bundled_model_path
from novacron.demo.tasks import TASKS
from novacron.engine.tokenization import Tokenizer
from novacron.executor.inline import InlineExecutor
from novacron.executor.quality_watch import QualityWatch
from novacron.kernels.linear import Linear
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.models.decoder import Decoder
from novacron.quality.document import Document
from novacron.quality.watch import Turns

SHORT = [task for task in TASKS if not task.startswith("retrieval")]


class TooLarge:
    """A product as if every scale of its weights were wrong by a fifth."""

    def __init__(self, product: Linear) -> None:
        self._product = product

    def __call__(
        self, x: Tensor, bias: Tensor | None = None, *, add_to: Tensor | None = None, **kind: Any
    ) -> Tensor:
        out = self._product(x, bias, **kind) * 1.2
        return out if add_to is None else add_to.add_(out)


@contextmanager
def planted(decoder: Decoder, layer: int) -> Iterator[None]:
    matrices = [
        matrix
        for matrix in decoder.matrices
        if any(name.startswith(f"model.layers.{layer}.") for name in matrix.names)
    ]
    assert len(matrices) == 4
    products = [matrix.product for matrix in matrices]
    for matrix in matrices:
        matrix.product = TooLarge(matrix.product)  # type: ignore[assignment]
    yield
    for matrix, product in zip(matrices, products, strict=True):
        matrix.product = product


def score(watch: QualityWatch, answers: list[Document]) -> int | None:
    """How many answers it took to raise an alert; None: none did."""
    before = watch.stats().num_alerts
    for count, answer in enumerate(answers, start=1):
        watch.offer(answer)
        while watch.has_work:
            watch.work(is_idle=True)
        if watch.stats().num_alerts > before:
            return count
    return None


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_planted_error_is_noticed_within_twenty_answers(
    quantization: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")
    path = bundled_model_path()
    executor = InlineExecutor(
        ModelConfig(
            device="cpu", num_threads=1, quantization=quantization, cache_dir=str(tmp_path)
        ),
        CacheConfig(kv_cache_memory=16 * 2**20),
        SchedulerConfig(max_num_seqs=4),
        model_path=path,
        progress=lambda phase, fraction: None,
    )
    watch = executor.watch_quality(0.5, Turns(settled_s=0.0))
    usual = list(demo_documents(Tokenizer.load(path), 160, 11, SHORT))
    assert score(watch, usual) is None
    stats = watch.stats()
    assert stats.quality is not None
    assert 0.97 < stats.quality < 1.03
    for layer in (0, 3, 5):
        watch.record.detector.sum, watch.record.detector.is_alarmed = 0.0, False
        later = list(demo_documents(Tokenizer.load(path), 20, 12 + layer, SHORT))
        with planted(executor._decoder, layer), caplog.at_level(logging.WARNING):
            assert score(watch, later) is not None
    assert ": answers have come to differ more" in caplog.text
