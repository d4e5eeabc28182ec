from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.quantization.levels import LEVELS, ROUNDED, Level
from novacron.quantization.resolution import Holdings, resolve

WIDE: list[Level] = ["fp32", "fp16", "bf16"]


@pytest.mark.parametrize(
    ("wanted", "computed", "stored", "level", "reason"),
    [
        (None, "bf16", "bf16", "bf16", ""),
        ("fp16", "fp16", "fp16", "fp16", ""),
        ("fp32", "bf16", "bf16", "bf16", "as in the checkpoint: fp32 would add nothing"),
        ("fp16", "bf16", "bf16", "bf16", "what computes here takes bf16"),
        ("fp16", "fp32", "bf16", "fp32", "what computes here takes fp32"),
        ("fp16", "fp32", "fp32", "fp32", "what computes here takes fp32"),
        ("fp32", "bf16", "fp32", "bf16", "coarser than the checkpoint's fp32"),
        ("int4", "bf16", "bf16", "int4", ""),
    ],
)
def test_what_becomes_of_a_level(
    wanted: Level | None, computed: Level, stored: Level, level: Level, reason: str
) -> None:
    found = resolve(wanted, Holdings(computed, stored))
    assert found.level == level
    assert reason in found.reason
    assert bool(reason) == bool(found.reason)


@given(
    st.sampled_from([None, *LEVELS]), st.sampled_from(WIDE), st.sampled_from(WIDE),
    st.frozensets(st.sampled_from(sorted(ROUNDED))),
)  # fmt: skip
def test_a_level_is_the_one_asked_for_or_there_is_a_reason(
    wanted: Level | None, computed: Level, stored: Level, rounded: frozenset[Level]
) -> None:
    found = resolve(wanted, Holdings(computed, stored, rounded))
    assert found.level in (computed, *rounded)
    assert bool(found.reason) == (wanted not in (None, found.level))
