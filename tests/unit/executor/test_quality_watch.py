"""The watch over a real (tiny) model: it scores as the bench does, and leaves serving alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from novacron.bench.forced_comparison import compare
from novacron.bench.forced_job import ForcedJob, Scored, Variant
from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError
from novacron.executor.inline import InlineExecutor
from novacron.executor.quality_watch import QualityWatch
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kernels.pages import drop_pages
from novacron.models.packed_cache import PackedCache
from novacron.quality.document import Document, DocumentScores
from novacron.quality.watch import Turns
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def model(folder: Path, **changes: Any) -> ModelConfig:
    settings: dict[str, Any] = {
        "device": "cpu", "dtype": "float32", "num_threads": 1, "quantization": "int4",
        "cache_dir": str(folder.parent / "cache"),
    }  # fmt: skip
    return ModelConfig(**{**settings, **changes})


CACHE = CacheConfig(kv_cache_memory=2**20, kv_cache_dtype="int8")


def load(folder: Path, **changes: Any) -> InlineExecutor:
    return InlineExecutor(
        model(folder, **changes),
        CACHE,
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        model_path=folder,
        progress=lambda phase, fraction: None,
    )


def documents(count: int, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    return [
        Document(tuple(rng.choices(range(3, 384), k=rng.randint(5, 90))), 3) for _ in range(count)
    ]


def score(watch: QualityWatch, answers: list[Document]) -> list[DocumentScores]:
    """What the watch makes of each answer."""
    found: list[DocumentScores] = []
    usual = watch.record.observe

    def observe(scores: DocumentScores) -> list[str]:
        found.append(scores)
        return usual(scores)

    watch.record.observe = observe  # type: ignore[method-assign]
    for answer in answers:
        watch.offer(answer)
        while watch.has_work:
            watch.work(is_idle=True)
    return found


def test_scores_are_those_of_the_bench(folder: Path) -> None:
    watch = load(folder).watch_quality(0.0, Turns(settled_s=0.0))
    answers = documents(6)
    config = EngineConfig(model=model(folder), cache=CACHE)
    plain = EngineConfig(model=model(folder, quantization="none"))
    job = ForcedJob(Variant(plain, str(folder)), Variant(config, str(folder)), tuple(answers))
    expected = [one.scores for one in compare(job) if isinstance(one, Scored)]
    assert score(watch, answers) == expected
    stats = watch.stats()
    assert (stats.num_scored, stats.num_dropped) == (6, 0)
    assert stats.quality is not None
    assert stats.seconds > 0


def serve(executor: InlineExecutor, between: Callable[[], object]) -> list[tuple[int, ...]]:
    """Greedy tokens of three requests, one step after the other."""
    greedy = SamplingParams(temperature=0.0, seed=0)
    requests = tuple(
        NewRequest(str(n), tuple(range(5 * n + 3, 5 * n + 20)), 17, greedy) for n in range(3)
    )
    parts = tuple(
        ScheduledTokens(one.request_id, 0, 17, (3 * n, 3 * n + 1, 3 * n + 2))
        for n, one in enumerate(requests)
    )
    tokens = []
    for step in range(12):
        output = executor.execute(SchedulerOutput(step, requests, parts, (), ()))
        tokens.append(tuple(result.token_ids[0] for result in output.results))
        requests = ()
        parts = tuple(ScheduledTokens(str(n), 17 + step, 1, ()) for n in range(3))
        between()
    executor.execute(SchedulerOutput(99, (), (), (), ("0", "1", "2")))
    return tokens


def test_requests_get_the_same_tokens_while_answers_are_scored_between_their_steps(
    folder: Path,
) -> None:
    executor = load(folder)
    expected = serve(executor, lambda: None)
    watch = executor.watch_quality(0.0, Turns(settled_s=0.0))
    for answer in documents(8):
        watch.offer(answer)
    found = serve(executor, lambda: watch.work(is_idle=True))
    assert watch.stats().num_scored > 0
    assert found == expected


def test_the_oldest_give_way_where_too_many_wait_and_the_longest_are_left_out(
    folder: Path,
) -> None:
    watch = load(folder).watch_quality(0.0, Turns(settled_s=0.0))
    for answer in documents(70):
        watch.offer(answer)
    watch.offer(Document(tuple(range(3, 303)) * 2, 5))  # longer than the model's context
    watch.offer(Document((4, 5, 6), 3))  # nothing to judge
    assert watch.stats().num_dropped == 6 + 2


def test_the_reference_is_mapped_and_packed_only_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    usual = PackedCache.keep

    def keep(self: PackedCache, key: str, contents: Any) -> None:
        kept.append(key)
        usual(self, key, contents)

    monkeypatch.setattr(PackedCache, "keep", keep)
    for _ in range(2):
        executor = load(folder, cache_dir=str(tmp_path))
        score(executor.watch_quality(0.0, Turns(settled_s=0.0)), documents(2))
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": "torch"}, "quality_watch needs kernels that take weights from files"),
        ({"packed_cache_size": 1000}, "packed_cache_size is 1,000"),
    ],
)
def test_where_weights_cannot_be_mapped_it_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder, **changes).watch_quality(0.0, Turns(settled_s=0.0))


def test_a_folder_that_cannot_be_written_to_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="another cache_dir"):
        load(folder, cache_dir=str(tmp_path / "file")).watch_quality(0.0, Turns(settled_s=0.0))


def test_dropped_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    values = torch.arange(2**24, dtype=torch.int32)
    cache = PackedCache(tmp_path, 2**30, fewest_bytes=0)
    cache.keep("k", {"m": values.view(torch.uint8)})
    expected = int(values.sum())
    del values
    found = cache.find("k")
    assert found is not None
    mapped = found["m"]
    assert int(mapped.view(torch.int32).sum()) == expected
    held = psutil.Process().memory_info().rss
    drop_pages(mapped)
    assert held - psutil.Process().memory_info().rss > 48 * 2**20
    assert int(mapped.view(torch.int32).sum()) == expected
