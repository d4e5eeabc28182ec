from __future__ import annotations

from typing import Any

import pytest

from novacron.errors import ModelLoadError
from novacron.models.decoder_config import LinearScaling
from novacron.models.families.gemma3.config import read_config, read_multimodal_config
from novacron.models.families.gemma3.weights import multimodal_source
from novacron.models.hf_config import HFConfig

GEMMA_3_4B: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}


def test_a_published_multimodal_file() -> None:
    config = read_multimodal_config(HFConfig(GEMMA_3_4B, "config.json"))
    assert (config.vocab_size, config.num_heads, config.head_dim) == (262208, 8, 256)
    assert config.tie_embeddings
    assert config.attention_scale == 256**-0.5
    assert [layer.window for layer in config.layers[:7]] == [1024] * 5 + [None, 1024]
    nearby, everywhere = config.layers[0].rope, config.layers[5].rope
    assert (nearby.theta, nearby.scaling) == (10_000.0, None)
    assert (everywhere.theta, everywhere.scaling) == (1_000_000.0, LinearScaling(8.0))


def test_names_of_the_text_part() -> None:
    config = read_multimodal_config(HFConfig(GEMMA_3_4B, "config.json"))
    name = "model.layers.3.mlp.up_proj.weight"
    assert multimodal_source(name, config).name == f"language_model.{name}"


def test_models_that_look_both_ways_are_refused() -> None:
    hf = HFConfig({**GEMMA_3_4B["text_config"], "use_bidirectional_attention": True}, "c")
    with pytest.raises(ModelLoadError, match="only causal models"):
        read_config(hf)
