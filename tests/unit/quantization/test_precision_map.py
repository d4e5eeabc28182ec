from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.weight_layers import Override
from novacron.errors import ConfigError
from novacron.quantization.components import Component, component_of
from novacron.quantization.levels import LEVELS, Level, finest, matrix_bytes
from novacron.quantization.precision_map import PrecisionMap
from novacron.quantization.profiles import PROFILES, UNIFORM

LAYER = "model.layers.3"
PARTS = {
    f"{LAYER}.self_attn.q_proj.weight": "attention_qkv",
    f"{LAYER}.self_attn.k_proj.weight": "attention_qkv",
    f"{LAYER}.self_attn.v_proj.weight": "attention_qkv",
    f"{LAYER}.self_attn.o_proj.weight": "attention_out",
    f"{LAYER}.mlp.gate_proj.weight": "ffn_gate",
    f"{LAYER}.mlp.experts.7.up_proj.weight": "ffn_up",
    f"{LAYER}.mlp.shared_expert.down_proj.weight": "ffn_down",
    "model.embed_tokens.weight": "embedding",
    "lm_head.weight": "output_head",
    f"{LAYER}.mlp.gate.weight": None,
    f"{LAYER}.mlp.shared_expert_gate.weight": None,
    f"{LAYER}.self_attn.q_proj.bias": None,
    f"{LAYER}.input_layernorm.weight": None,
    "weight": None,
}
MATRICES = [name for name, part in PARTS.items() if part is not None]


@pytest.mark.parametrize("name", PARTS)
def test_a_matrix_is_a_component_by_its_name(name: str) -> None:
    assert component_of(name) == PARTS[name]


def test_profiles_have_a_level_for_every_component() -> None:
    for profile in PROFILES.values():
        assert profile.keys() == set(get_args(Component))


def test_a_profile_never_gives_more_than_one_that_asks_for_more_quality() -> None:
    memory, balanced, quality = PROFILES.values()
    for component in get_args(Component):
        levels = [profile[component] for profile in (memory, balanced, quality)]
        assert finest(levels) == levels[-1]
        assert finest(levels[:2]) == levels[1]


def test_a_name_has_the_level_of_its_component() -> None:
    chosen = PrecisionMap("memory_critical")
    assert chosen.level_of(f"{LAYER}.self_attn.o_proj.weight") == "int8"
    assert chosen.level_of(f"{LAYER}.mlp.up_proj.weight") == "int4"
    assert chosen.level_of(f"{LAYER}.mlp.gate.weight") is None
    assert chosen.level_of_component("kv_values") == "int4"
    assert PrecisionMap().level_of(f"{LAYER}.mlp.up_proj.weight") is None


def test_a_tied_embedding_has_the_finer_level_of_its_two_uses() -> None:
    name = "model.embed_tokens.weight"
    assert PrecisionMap("memory_critical").level_of(name) == "int8"
    assert PrecisionMap("memory_critical").level_of(name, "output_head") == "fp16"
    named = PrecisionMap.parse("memory_critical", [f"{name}=int4"])
    assert named.level_of(name, "output_head") == "int4"


def test_the_last_override_that_matches_counts() -> None:
    chosen = PrecisionMap.parse(
        "int8", ["*.down_proj.weight=int4", "model.layers.3.*=bfloat16", "*.3.mlp.up*=fp8"]
    )
    assert chosen.level_of("model.layers.2.mlp.down_proj.weight") == "int4"
    assert chosen.level_of("model.layers.3.mlp.down_proj.weight") == "bf16"
    assert chosen.level_of("model.layers.3.mlp.up_proj.weight") == "fp8"
    assert chosen.level_of("model.layers.33.mlp.up_proj.weight") == "int8"


def test_groups_come_from_the_override_that_counts() -> None:
    chosen = PrecisionMap.parse("int8", ["*=int4/64", "model.layers.3.*=int4", "*.up*=INT8/128"])
    assert chosen.group_size_of("model.layers.2.mlp.down_proj.weight") == 64
    assert chosen.group_size_of("model.layers.3.mlp.down_proj.weight") is None
    assert chosen.group_size_of("model.layers.3.mlp.up_proj.weight") == 128
    assert chosen.level_of("model.layers.3.mlp.up_proj.weight") == "int8"
    assert [str(one) for one in chosen.overrides] == [
        "*=int4/64", "model.layers.3.*=int4", "*.up*=int8/128",
    ]  # fmt: skip


@pytest.mark.parametrize("entry", ["*=int4/16", "*=bf16/64", "*=fp8/128", "*=int4/", "*=/64"])
def test_groups_that_cannot_be_had_are_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"int8 and int4 may be followed by .* 32, 64, 128"):
        PrecisionMap.parse("none", [entry])


@given(
    st.sampled_from([*PROFILES, *UNIFORM]),
    st.lists(st.tuples(st.sampled_from([*MATRICES, "*", "*.q_proj.*", "lm*"]),
                       st.sampled_from(LEVELS))),
    st.sampled_from([*PARTS]),
)  # fmt: skip
def test_a_map_does_as_its_parts_in_order(
    base: str, rules: list[tuple[str, Level]], name: str
) -> None:
    """Adding a rule changes what it matches, to its level, and nothing else."""
    overrides = [Override(*rule) for rule in rules]
    for count, (pattern, level) in enumerate(rules):
        before, after = (PrecisionMap(base, tuple(overrides[:end])) for end in (count, count + 1))
        single = PrecisionMap("none", (Override(pattern, level),)).level_of(name)
        assert after.level_of(name) == (single or before.level_of(name))


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    PrecisionMap.parse("int8", ["*.q_proj.weight=int4"]).check_patterns(PARTS)
    for pattern in ("*.wq.weight", "*.gate.weight", "*layernorm*"):
        with pytest.raises(ConfigError, match=r"no matrix that can be rounded .* There are 9"):
            PrecisionMap.parse("int8", [f"{pattern}=int4"]).check_patterns(PARTS)


@pytest.mark.parametrize("entry", ["", "=int4", "a.weight", "a=int3", "a=", "int4"])
def test_an_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"quantization_layers has .* for example model.layers.0"):
        PrecisionMap.parse("int8", [entry])


def test_a_base_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'int5': choose one of none, .* balanced"):
        PrecisionMap("int5")


def test_bytes_count_the_scales() -> None:
    shape = (64, 4096)
    sizes = {level: matrix_bytes(level, shape, 64) for level in LEVELS}
    assert sizes == {
        "fp32": 2**20, "fp16": 2**19, "bf16": 2**19,
        "fp8": 64 * (4096 + 32 * 4),
        "int8": 64 * (4096 + 64 * 2), "int4": 64 * (2048 + 64 * 2),
    }  # fmt: skip
    assert matrix_bytes("int4", (1, 40), 32) == 2 * (16 + 2)
    assert sizes["bf16"] / matrix_bytes("int4", shape, 32) == pytest.approx(3.56, abs=0.01)


# Llama 3.1 405B: outputs x inputs of its matrices by component.
LARGE: dict[Component, tuple[int, int]] = {
    "embedding": (128256, 16384), "output_head": (128256, 16384),
    "attention_qkv": (126 * (16384 + 2 * 1024), 16384), "attention_out": (126 * 16384, 16384),
    "ffn_gate": (126 * 53248, 16384), "ffn_up": (126 * 53248, 16384),
    "ffn_down": (126 * 16384, 53248),
}  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "gigabytes", "of_scales"),
    [("memory_critical", 224, 11), ("balanced", 444, 10), ("quality_critical", 820, 0)],
)
def test_the_profiles_of_a_large_model_take_what_was_reckoned(
    profile: str, gigabytes: float, of_scales: float
) -> None:
    """Groups of 64. The vocabulary of quality_critical has 32 bits, as was asked for."""

    def total(group_size: int) -> float:
        levels = PROFILES[profile]
        return sum(matrix_bytes(levels[part], LARGE[part], group_size) for part in LARGE) / 1e9

    without_scales = total(2**12)  # of the inputs' common divisor
    assert without_scales == pytest.approx(gigabytes, rel=0.01)
    assert total(64) - without_scales == pytest.approx(of_scales, abs=2)
