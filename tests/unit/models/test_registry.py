from __future__ import annotations

from typing import Any

import pytest

from novacron.errors import ModelLoadError, UnsupportedModel
from novacron.models.hf_config import HFConfig
from novacron.models.registry import FAMILIES, find_family


def config(**values: Any) -> HFConfig:
    return HFConfig(values, "config.json")


def test_the_first_known_architecture_counts() -> None:
    name, family = find_family(config(architectures=["Other", "Qwen2ForCausalLM"]))
    assert name == "Qwen2ForCausalLM"
    assert family is FAMILIES[name]


def test_an_unsupported_architecture_lists_the_supported_ones() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        find_family(config(architectures=["MambaForCausalLM"]))
    assert "'MambaForCausalLM'" in str(caught.value)
    assert all(name in str(caught.value) for name in FAMILIES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "'T5ForConditionalGeneration' is an encoder-decoder model",
        ),
        ({}, "'architectures' is missing"),
    ],
)
def test_checkpoints_that_cannot_be_served(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        find_family(config(**values))
