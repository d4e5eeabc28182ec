from __future__ import annotations

import pytest

from novacron.bench.compare import changes, comparison_grids, paired_changes
from novacron.bench.machine import describe
from novacron.bench.result import BenchResult, Row, metric, milliseconds, row
from novacron.errors import ConfigError

ENVIRONMENT = describe()


def _result(*rows: Row, benchmark: str = "latency", num_examples: int = 4) -> BenchResult:
    return BenchResult(
        benchmark=benchmark,
        started_at="",
        ended_at="",
        load_average=(0, 0),
        seed=0,
        target={},
        scenario={"seed": 0, "num_examples": num_examples},
        environment=ENVIRONMENT,
        rows=rows,
        columns=(),
    )


def _latency(tokens: int, scale: float) -> Row:
    return row(
        {"prompt tokens": tokens},
        ttft=milliseconds([scale * (1 + 0.01 * n) for n in range(10)]),
        rate=metric("tok/s", "higher", [100 / scale]),
        prompt=metric("tokens", "neither", [5]),
    )


def _accuracy(task: str, verdicts: list[float]) -> Row:
    return row({"task": task}, accuracy=metric("", "higher", verdicts, keep=len(verdicts)))


def test_a_slowdown_and_a_speedup_are_told_apart() -> None:
    before = _result(_latency(16, 1.0), _latency(32, 1.0))
    after = _result(_latency(32, 0.5), _latency(64, 1.0), _latency(16, 2.0))
    by_case = {(c.labels["prompt tokens"], c.metric): c for c in changes(before, after)}
    assert by_case.keys() == {(16, "ttft"), (16, "rate"), (32, "ttft"), (32, "rate")}
    assert by_case[16, "ttft"].ratio == pytest.approx(2)
    assert [by_case[16, "ttft"].better, by_case[16, "rate"].better] == [False, False]
    assert [by_case[32, "ttft"].better, by_case[32, "rate"].better] == [True, True]


def test_noise_is_no_change() -> None:
    compared = changes(_result(_latency(16, 1.0)), _result(_latency(16, 1.001)))
    assert next(c for c in compared if c.metric == "ttft").better is None


def test_different_benchmarks_are_not_compared() -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        changes(_result(_latency(16, 1)), _result(_latency(16, 1), benchmark="serve"))


def test_nothing_in_common_is_told() -> None:
    with pytest.raises(ConfigError, match="no case in common"):
        changes(_result(_latency(16, 1)), _result(_latency(17, 1)))


def test_accuracy_is_compared_question_by_question() -> None:
    before = _result(_accuracy("sums", [1, 1, 0, 1] * 10), benchmark="accuracy")
    after = _result(_accuracy("sums", [0, 1, 1, 0] * 10), benchmark="accuracy")
    [pair] = paired_changes(before, after)
    assert (pair.only_before, pair.only_after) == (20, 10)
    assert pair.p_value == pytest.approx(0.0987, abs=1e-3)
    [grid] = comparison_grids(before, after)
    assert grid.lines[0][-1] == "no clear change"
    worse = _result(_accuracy("sums", [0, 0, 0, 0] * 10), benchmark="accuracy")
    assert comparison_grids(before, worse)[0].lines[0][-1] == "worse"


def test_accuracy_over_other_questions_is_compared_as_a_whole() -> None:
    before = _result(_accuracy("sums", [1, 0]), benchmark="accuracy", num_examples=2)
    after = _result(_accuracy("sums", [1, 0, 1]), benchmark="accuracy", num_examples=3)
    assert paired_changes(before, after) == []
    assert "ratio" in comparison_grids(before, after)[0].header
