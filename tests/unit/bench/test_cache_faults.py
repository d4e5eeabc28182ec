"""What the benchmark of faults makes of counts."""

from __future__ import annotations

import pytest

from novacron.bench.cache_fault_job import BASELINE, FaultTurn
from novacron.bench.cache_faults import goals_of_kills, rows_of_kills, rows_of_turns
from novacron.bench.killed_writers import Seen

WELL = Seen(cycles=10, stored=300, found=200, lost=120, most_bytes=2**17)


def test_blocks_may_be_lost_where_they_have_to_make_room_and_nowhere_else() -> None:
    little, room = ("little", 2**18, WELL), ("room", 2**24, Seen(cycles=5, stored=100, lost=0))
    assert [goal.met for goal in goals_of_kills([little, room])] == [True] * 4
    lossy = ("room", 2**24, Seen(cycles=5, stored=100, lost=1))
    assert [goal.met for goal in goals_of_kills([little, lossy])] == [True, True, True, False]


@pytest.mark.parametrize(("field", "missed"), [("wrong", 0), ("torn", 1), ("over_limit", 2)])
def test_one_of_them_misses_its_goal(field: str, missed: int) -> None:
    goals = goals_of_kills([("little", 2**18, WELL), ("cut", 2**18, Seen(**{field: 1}))])
    assert [goal.met for goal in goals] == [place != missed for place in range(4)]


def test_a_row_tells_how_much_of_its_limit_a_folder_took() -> None:
    [row] = rows_of_kills([("little", 2**18, WELL)])
    assert row.metrics["of_limit"].summary.p50 == 0.5
    assert row.metrics["lost"].summary.p50 == 120


def test_turns_of_a_fault_are_one_row_and_every_wrong_or_failed_request_counts() -> None:
    turns = [
        FaultTurn(fault=BASELINE, seconds=(0.1, 0.2)),
        FaultTurn(fault="cut", seconds=(0.1, 0.3), num_faults=3, num_cached_tokens=100,
                  num_cached_before=400),
        FaultTurn(fault="cut", seconds=(0.1, 0.5), num_faults=1, num_wrong=1,
                  num_cached_tokens=100, num_cached_before=400),
        FaultTurn(fault="hang", seconds=(0.1, 0.1), num_failed=2),
    ]  # fmt: skip
    rows, (wrong, failed) = rows_of_turns(turns)
    assert [row.labels["what"] for row in rows] == [BASELINE, "Redis, cut", "Redis, hang"]
    assert "requests" not in rows[0].metrics
    cut = rows[1].metrics
    assert (cut["requests"].summary.p50, cut["faults"].summary.p50) == (4, 4)
    assert (cut["wrong"].summary.p50, cut["from_tier"].summary.p50) == (1, 0.25)
    assert (wrong.value, failed.value) == (1, 2)
    assert not wrong.met
    assert not failed.met
