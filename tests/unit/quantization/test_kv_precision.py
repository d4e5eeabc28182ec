from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.kv_layers import KVDtype
from novacron.kernels.kv_format import KVFormat
from novacron.quantization.kv_precision import kv_precision
from novacron.quantization.precision_map import PrecisionMap
from novacron.quantization.profiles import PROFILES, UNIFORM

COMPUTED: list[KVDtype] = ["float32", "bfloat16", "float16"]


@pytest.mark.parametrize(
    ("profile", "computed", "keys", "values"),
    [
        ("memory_critical", "bfloat16", "int8", "int4"),
        ("memory_critical", "float32", "int8", "int4"),
        ("balanced", "float16", "float16", "int8"),
        ("balanced", "bfloat16", "bfloat16", "int8"),
        ("balanced", "float32", "float16", "int8"),
        ("quality_critical", "bfloat16", "bfloat16", "bfloat16"),
        ("quality_critical", "float32", "float16", "float16"),
    ],
)
def test_what_a_profile_makes_of_the_cache(
    profile: str, computed: KVDtype, keys: KVDtype, values: KVDtype
) -> None:
    assert kv_precision(PrecisionMap(profile), computed) == (keys, values)


@given(st.sampled_from([*PROFILES, *UNIFORM]), st.sampled_from(COMPUTED))
def test_never_wider_than_what_is_computed(base: str, computed: KVDtype) -> None:
    for held in kv_precision(PrecisionMap(base), computed):
        assert KVFormat(held).token_bytes(128) <= KVFormat(computed).token_bytes(128)
        assert held == computed or base in PROFILES


def test_exceptions_for_matrices_change_nothing() -> None:
    named = PrecisionMap.parse("balanced", ["*=int4"])
    assert kv_precision(named, "bfloat16") == kv_precision(PrecisionMap("balanced"), "bfloat16")
