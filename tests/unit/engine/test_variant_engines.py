from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, SharedDevice
from novacron.config.model import ModelConfig
from novacron.config.variants import Variant
from novacron.engine.variant_engines import main_variant, variant_engines
from novacron.errors import ConfigError, ModelLoadError


def test_variants_share_all_settings_but_their_precision() -> None:
    config = EngineConfig(
        model=ModelConfig(
            quantization="int4", quantization_layers=("*.0.*=int8",), seed=7,
            variants=("none", "int8:int8/int4"),
        ),
        cache=CacheConfig(kv_cache_dtype="fp8", kv_cache_dtype_layers=("0=bf16",)),
    )  # fmt: skip
    main = Variant("int4", layers=("*.0.*=int8",))
    engines = variant_engines(config, main)
    assert [one.name for one in engines] == ["int4", "none", "int8:int8/int4"]
    of_main, none, int8 = (one.config for one in engines)
    assert (of_main.model, of_main.cache) == (config.model, config.cache)
    assert (none.model.quantization, none.model.quantization_layers) == ("none", ())
    assert none.cache == config.cache
    assert (int8.cache.kv_cache_dtype, int8.cache.kv_cache_dtype_layers) == ("int8/int4", ())
    assert {one.model.seed for one in (of_main, none, int8)} == {7}
    assert none.shared == SharedDevice(others=(main, Variant("int8", "int8/int4")))


def test_a_variant_of_the_main_precision_is_refused() -> None:
    config = EngineConfig(model=ModelConfig(quantization="int8", variants=("int8",)))
    with pytest.raises(ConfigError, match="'int8', which is the main variant"):
        variant_engines(config, Variant("int8"))


def test_auto_is_what_a_folder_of_ours_was_rounded_to(tmp_path: Path) -> None:
    recipe = {
        "quantization": "balanced", "quantization_layers": ["*.0.*=int8"],
        "quantization_group_size": 64, "method": "rtn",
    }  # fmt: skip
    config = {"architectures": ["LlamaForCausalLM"], "novacron_quantization": recipe}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = main_variant(ModelConfig(quantization_layers=("*.1.*=bf16",)), tmp_path)
    assert found == Variant("balanced", layers=("*.0.*=int8", "*.1.*=bf16"))
    assert main_variant(ModelConfig(quantization="int4"), tmp_path) == Variant("int4")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    assert main_variant(ModelConfig(), tmp_path).name == "none"
    recipe["quantization"] = "int1"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="'int1', which this version does not know"):
        main_variant(ModelConfig(), tmp_path)
