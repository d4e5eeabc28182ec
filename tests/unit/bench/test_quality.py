"""Two variants compared: rows, and what the comparing process tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from novacron.bench.forced_comparison import compare
from novacron.bench.forced_job import ForcedJob, Loaded, Scored, Variant, VariantFacts
from novacron.bench.quality_goals import quality_goals
from novacron.bench.quality_rows import quality_rows, size_rows, speed_row, task_rows
from novacron.bench.target import TargetOptions, with_settings
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.quality.document import Document, DocumentScores
from novacron.testing.tiny_models import make_tiny_model

DOCUMENTS = tuple(Document(tuple(range(start, start + 40)), 5) for start in (3, 60, 200))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def variant(folder: Path, **model: Any) -> Variant:
    return Variant(
        EngineConfig(model=ModelConfig(device="cpu", num_threads=1, **model)), str(folder)
    )


def scores_of(first: Variant, second: Variant) -> tuple[Loaded, list[DocumentScores]]:
    loaded, *scored = compare(ForcedJob(first, second, DOCUMENTS))
    assert isinstance(loaded, Loaded)
    return loaded, [one.scores for one in scored if isinstance(one, Scored)]


def test_a_variant_against_itself_loses_nothing(folder: Path) -> None:
    same = variant(folder, dtype="float32")
    loaded, scores = scores_of(same, same)
    assert loaded.reference == loaded.variant
    assert [len(one.kl) for one in scores] == [35, 35, 35]
    assert all(one.reference_nll == one.variant_nll for one in scores)
    assert all(set(one.kl) == {0.0} for one in scores)


def test_fewer_bits_lose_more(folder: Path) -> None:
    reference = variant(folder, dtype="float32")
    kl = {}
    for level in ("int8", "int4"):
        loaded, scores = scores_of(reference, variant(folder, dtype="float32", quantization=level))
        kl[level] = sum(sum(one.kl) for one in scores)
        assert loaded.variant.weight_bytes < loaded.reference.weight_bytes
    assert 0 < 10 * kl["int8"] < kl["int4"]


def test_models_of_different_vocabularies_are_refused(folder: Path, tmp_path: Path) -> None:
    other = make_tiny_model("llama", tmp_path / "other", vocab_size=400)
    with pytest.raises(ConfigError, match="384 tokens and the variant 400"):
        list(compare(ForcedJob(variant(folder), variant(other), DOCUMENTS)))


def test_rows_of_scores_tell_all_then_contexts() -> None:
    scores = [DocumentScores(60, (1.0,) * 9, (1.1,) * 9, (0.2,) * 9, (True,) * 9, (0.5,) * 9)] * 4
    rows = {(one.labels["measure"], one.labels["of"]): one.metrics for one in quality_rows(scores)}
    assert rows["quality", "all"]["compared"].summary.mean == pytest.approx(0.90484, abs=1e-5)
    nll = rows["NLL (mnat)", "all"]
    assert (nll["reference"].summary.mean, nll["variant"].summary.mean) == (1000, 1100)
    assert nll["compared"].summary.mean == pytest.approx(100)
    contexts = [of for measure, of in rows if measure == "KL (mnat)"]
    assert contexts == ["all", "context <= 64", "context <= 128"]
    assert rows["KL (mnat)", "context <= 128"]["compared"].summary.mean == 200


def test_goals_are_of_the_worse_ends_of_intervals() -> None:
    changes = (-0.3, -0.1, 0.0, 0.1)
    scores = [
        DocumentScores(60, (1.0,) * 2, (1.0 + change,) * 2, (0.2,) * 2, (True,) * 2, (0.5,) * 2)
        for change in changes
    ]
    rows = list(quality_rows(scores))
    quality, nll = quality_goals(rows, least_quality=1.0, beats_reference=True)
    # The means say that it is better, and four documents that it may be luck.
    assert rows[0].metrics["compared"].summary.mean > 1
    assert (quality.met, nll.met) == (False, False)
    assert 0.9 < quality.value < 1 < nll.value < 100
    sure = list(quality_rows([scores[0]] * 3))
    assert all(goal.met for goal in quality_goals(sure, least_quality=1.3, beats_reference=True))
    assert not list(quality_goals(rows, least_quality=0.0, beats_reference=False))


def test_rows_of_tasks_are_pairs() -> None:
    before = {"sums": [True, True, False, True], "capitals": [True, True]}
    after = {"sums": [True, False, True, False], "capitals": [True, True]}
    whole, sums, capitals = task_rows(before, after)
    assert [one.labels["of"] for one in (whole, sums, capitals)] == [
        "all tasks", "sums", "capitals",
    ]  # fmt: skip
    assert sums.metrics["compared"].summary.mean == -0.25
    assert whole.metrics["compared"].summary.mean == pytest.approx(-1 / 6, abs=1e-4)
    assert whole.metrics["reference"].samples == (1, 1, 0, 1, 1, 1)
    assert capitals.metrics["least"].summary.mean < 0 < capitals.metrics["most"].summary.mean


def test_speed_and_bytes_are_ratios() -> None:
    speed = speed_row([100.0, 110.0, 90.0], [200.0, 220.0, 180.0], 8)
    assert speed.metrics["compared"].summary.p50 == 2
    facts = {"dtype": "", "quantization": "", "kv_precision": "", "kernels": ""}
    weights, cache = size_rows(
        Loaded(
            VariantFacts(**facts, weight_bytes=400, kv_bytes_per_token=64.0),
            VariantFacts(**facts, weight_bytes=100, kv_bytes_per_token=17.0),
        )
    )
    assert weights.metrics["compared"].summary.mean == 0.25
    assert (cache.metrics["reference"].summary.mean, cache.metrics["variant"].summary.mean) == (
        64,
        17,
    )


def test_a_reference_has_its_own_settings_and_may_be_another_folder() -> None:
    options = TargetOptions(
        model="small",
        config=Path("plan.yaml"),
        settings=("quantization=int8", "num_threads=1"),
        environment=os.environ,
    )
    reference = with_settings(options, ("dtype=float32", "model=large", "num_threads=2"))
    assert (reference.model, reference.settings) == ("large", ("dtype=float32", "num_threads=2"))
    assert reference.config is None
    assert with_settings(options, ("dtype=auto",)).model == "small"
