from __future__ import annotations

import pytest

from novacron.bench.kv_codec_job import LevelMeasured
from novacron.bench.kv_codec_rows import accuracy_row, goals_of, level_row
from novacron.bench.tiered_answers import TieredAnswers
from novacron.config.kv_compression import KVLevel
from novacron.quality.document import DocumentScores

AGREEING = DocumentScores(4, (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (True, True), (0.0, 0.0))
DIFFERENT = DocumentScores(4, (1.0, 1.0), (2.0, 1.0), (0.2, 0.0), (False, True), (3.0, 0.0))


def measured(level: KVLevel, *scores: DocumentScores) -> LevelMeasured:
    return LevelMeasured(
        level=level,
        block_bytes=400,
        encoded_bytes=250,
        num_tokens=32,
        key_errors=(0.01, 0.03),
        value_errors=(0.02, 0.02),
        encode_s=(0.5, 0.25),
        decode_s=(0.125, 0.125),
        copy_s=(0.0625, 0.0625),
        scores=scores,
    )


def test_what_a_level_costs() -> None:
    found = level_row(measured("int8", AGREEING, DIFFERENT)).metrics
    assert found["ratio"].samples == (1.6,)
    assert found["key_error"].summary.mean == pytest.approx(0.02)
    assert found["encode"].samples == (64.0, 128.0)
    assert found["decode_share"].samples == (0.5, 0.5)
    assert found["top1"].samples == (0.75,)
    assert found["kl"].samples == (50.0,)
    assert found["judged"].samples == (4,)


def test_answers_are_compared_question_by_question() -> None:
    exact = {"a": [True, True, False], "b": [True]}
    answers = TieredAnswers({"b": [True], "a": [False, True, True]}, 0.9, 1000)
    found = accuracy_row("int8", exact, answers)
    assert found.labels["of"] == "answers to 4 questions"
    assert found.metrics["exact"].samples == (1, 1, 0, 1)
    assert found.metrics["accuracy"].samples == (0, 1, 1, 1)
    assert found.metrics["difference"].samples == (0.0,)
    assert found.metrics["least"].samples[0] < 0 < found.metrics["most"].samples[0]
    assert found.metrics["from_tier"].samples == (0.9,)


def test_goals_are_those_of_int8_and_int4() -> None:
    answers = TieredAnswers({"a": [False] * 4}, 1.0, 10)
    rows = [
        level_row(measured("int8", AGREEING, DIFFERENT)),
        level_row(measured("fp8", DIFFERENT)),
        accuracy_row("int8", {"a": [True] * 4}, answers),
        accuracy_row("fp8", {"a": [True] * 4}, answers),
    ]
    agreement, lost = goals_of(rows)
    assert (agreement.value, agreement.limit, agreement.met) == (0.75, 0.99, False)
    assert (lost.value, lost.limit, lost.met) == (1.0, 0.01, False)
    levels: tuple[KVLevel, ...] = ("int8", "int4")
    for level in levels:
        assert all(goal.met for goal in goals_of([level_row(measured(level, AGREEING))]))
