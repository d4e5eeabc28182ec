from __future__ import annotations

from pathlib import Path

import pytest

from novacron.bench.machine import describe
from novacron.bench.report import fact_lines, goals_grid, markdown, number, results_grid
from novacron.bench.result import (
    BenchResult,
    Column,
    Goal,
    Row,
    load,
    metric,
    milliseconds,
    row,
    save,
)
from novacron.errors import ConfigError

ENVIRONMENT = describe()


def make_result(*rows: Row, benchmark: str = "latency", **changes: object) -> BenchResult:
    values = {
        "benchmark": benchmark,
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:01:00+00:00",
        "load_average": (0.1, 0.2),
        "seed": 0,
        "target": {"model": "demo"},
        "scenario": {"seed": 0, "num_examples": 4},
        "environment": ENVIRONMENT,
        "rows": rows,
        "columns": (Column("ttft"), Column("ttft", "p99"), Column("absent")),
        **changes,
    }
    return BenchResult(**values)  # type: ignore[arg-type]


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    written = make_result(
        row({"prompt tokens": 16}, ttft=milliseconds([0.001, 0.002])),
        goals=(Goal(name="fast", limit=1, better="lower", value=2.0),),
        facts={"client": 0.1},
    )
    save(written, tmp_path / "new" / "folder" / "r.json")
    assert load(tmp_path / "new" / "folder" / "r.json") == written


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}'])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"r\.json is not a benchmark result"):
        load(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    save(make_result(format=99), tmp_path / "r.json")
    with pytest.raises(ConfigError, match="format 99"):
        load(tmp_path / "r.json")


def test_many_samples_are_summarised_whole_and_kept_in_part() -> None:
    many = metric("ms", "lower", list(range(10_000)))
    assert many.summary.count == 10_000
    assert many.summary.p50 == 4999.5
    assert len(many.samples) == 500
    assert many == metric("ms", "lower", list(range(10_000)))
    assert len(metric("", "higher", [1.0] * 900, keep=900).samples) == 900


def test_rows_are_found_by_some_of_their_labels() -> None:
    result = make_result(row({"a": 1, "b": 2}, ttft=milliseconds([1])), row({"a": 1, "b": 3}))
    assert result.row(b=3).metrics == {}


def test_the_table_shows_the_chosen_columns_that_exist() -> None:
    result = make_result(
        row({"prompt tokens": 16}, ttft=milliseconds([0.0011, 0.0011])), row({"prompt tokens": 32})
    )
    grid = results_grid(result)
    assert grid.header == ("prompt tokens", "ttft p50 (ms)", "ttft p99 (ms)")
    assert grid.lines == (("16", "1.1", "1.1"), ("32", "", ""))


def test_goals_know_their_direction() -> None:
    goals = (
        Goal(name="share", limit=0.9, better="higher", value=0.95),
        Goal(name="added", limit=2.0, better="lower", value=3.0, unit="ms"),
    )
    assert [goal.met for goal in goals] == [True, False]
    assert goals_grid(goals).lines == (
        ("share", ">= 0.9", "0.95", "met"),
        ("added", "<= 2 ms", "3 ms", "MISSED"),
    )


def test_the_page_tells_where_and_how() -> None:
    result = make_result(
        row({"prompt tokens": 16}, ttft=milliseconds([0.001])), facts={"parts": {"queue": 0.5}}
    )
    page = markdown(result)
    assert "| prompt tokens | ttft p50 (ms) | ttft p99 (ms) |" in page
    assert "| 16 | 1 | 1 |" in page
    assert "parts: queue 0.5" in page
    assert ENVIRONMENT.hardware.cpu_model in page
    assert fact_lines(result) == ["parts: queue 0.5"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.3456, "12.3"), (0.012345, "0.0123"), (3.0, "3"), (7, "7"), ("x", "x"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_are_short(value: object, text: str) -> None:
    assert number(value) == text
