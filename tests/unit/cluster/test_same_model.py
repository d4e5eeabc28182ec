"""Engines of one group compute the same, or are not of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from novacron.cluster.same_model import SameModel
from novacron.errors import ModelLoadError
from novacron.testing.reciting_engine import _SPEC as SPEC


def test_equal_engines_may_differ_in_what_changes_no_token() -> None:
    same = SameModel()
    same.check(SPEC)
    same.check(replace(SPEC, num_blocks=3, host="other", device_free_bytes=7))


@pytest.mark.parametrize(
    ("fact", "value"), [("model_version", "2"), ("dtype", "bfloat16"), ("max_model_len", 5)]
)
def test_others_are_refused_with_what_differs(fact: str, value: object) -> None:
    same = SameModel()
    same.check(replace(SPEC, host="first"))
    with pytest.raises(ModelLoadError, match=f"node-2 has {fact}.*first"):
        same.check(replace(SPEC, host="node-2", **{fact: value}))
    same.check(SPEC)  # the first one counts, not the last
