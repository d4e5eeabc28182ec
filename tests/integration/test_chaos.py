"""`make chaos` on the bundled model, in ways of computing that differ in what a death can break.
The short form stands in server/test_end_of_the_engine.py."""

from __future__ import annotations

import os

import pytest

from novacron.bench import chaos
from novacron.bench.scenario import ChaosScenario
from novacron.bench.target import TargetOptions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        (("kill", "stop", "kill twice"), ()),
        (("kill rank", "stop rank", "kill"), ("tensor_parallel_size=2", "num_threads=2")),
        (("kill", "kill twice"), ("speculative_method=ngram",)),
        (("kill", "kill twice"), ("kv_ram_size=0", "kv_disk_size=0", "max_num_seqs=4")),
    ],
)
async def test_no_call_is_lost_repeated_or_changed(
    faults: tuple[str, ...], settings: tuple[str, ...]
) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NOVACRON_")}
    options = TargetOptions(environment=ours, settings=settings)
    result = await chaos.run(options, ChaosScenario(num_faults=12, faults=faults), print)
    assert result.facts["num_faults"] == 12
    assert result.facts["undisturbed"]["same"] == 32
    assert result.facts["unexpected"] == []
    counted = result.facts["under_faults"]
    assert counted["same"] == result.facts["num_calls_under_faults"] > 0
