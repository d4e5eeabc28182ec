"""Rows and goals of copies, from times that are given."""

from __future__ import annotations

from novacron.bench.cache_cost import rows_of_copies
from novacron.bench.tier_times import MediumTimes, TierTimes

RAM = MediumTimes(
    num_bytes=10**8,
    store_s=(0.02, 0.02),
    plain_store_s=(0.01, 0.01),
    load_s=(0.01, 0.01),
    plain_load_s=(0.01, 0.01),
)
DISK = MediumTimes(
    num_bytes=10**8,
    store_s=(0.1, 0.1),
    plain_store_s=(0.09, 0.09),
    load_s=(0.4, 0.4),
    plain_load_s=(0.1, 0.1),
)
LOOKUPS = (60e-6, 70e-6, 80e-6)


def test_a_copy_is_judged_by_a_plain_one_of_the_same_round() -> None:
    times = TierTimes(
        ram=RAM,
        large_ram=RAM,
        disk=DISK,
        drive=RAM,
        large_disk=DISK,
        new_files=DISK,
        encrypted_disk=DISK,
        lookup_s=LOOKUPS,
    )
    rows, goals = rows_of_copies(times)
    assert len(rows) == 2 * 7 + 1
    shares = {one.labels["cache"]: one.metrics["share"].samples for one in rows[:4]}
    assert shares == {
        "store, RAM": (0.5, 0.5),
        "load, RAM": (1.0, 1.0),
        "store, disk": (0.9, 0.9),
        "load, disk": (0.25, 0.25),
    }
    assert rows[0].metrics["bandwidth"].summary.p50 == 5.0
    assert [goal.met for goal in goals] == [False, True, True, False, False, True, False]
    assert goals[-1].value == 70.0
