"""From the settings of a server to those of the engine of each variant. Pure but for config.json.

Variants share everything but the precision of weights and, if they name one, of the KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from novacron.config.engine import EngineConfig, SharedDevice
from novacron.config.model import ModelConfig
from novacron.config.variants import QUANTIZATIONS, Quantization, Variant, parse_variants
from novacron.errors import ConfigError, ModelLoadError
from novacron.models.hf_config import read_hf_config
from novacron.models.rewriting.recipe import read_recipe


@dataclass(frozen=True)
class VariantEngine:
    """One variant by its name, and the settings of its engine."""

    name: str
    config: EngineConfig


def main_variant(model: ModelConfig, path: Path) -> Variant:
    """The one that `quantization` asks for, "auto" being what a folder of ours was rounded to.
    Raises ModelLoadError."""
    layers = model.quantization_layers
    if model.quantization != "auto":
        return Variant(model.quantization, layers=layers)
    recipe = None if path.is_file() else read_recipe(read_hf_config(path))
    if recipe is None:
        return Variant("none", layers=layers)
    return Variant(_known(recipe.quantization), layers=(*recipe.layers, *layers))


def _known(quantization: str) -> Quantization:
    """Raises ModelLoadError."""
    if quantization not in QUANTIZATIONS:
        raise ModelLoadError(
            f"The folder was quantized to '{quantization}', which this version does not know. It "
            f"knows {', '.join(QUANTIZATIONS)}."
        )
    return QUANTIZATIONS[quantization]


def variant_engines(config: EngineConfig, main: Variant) -> tuple[VariantEngine, ...]:
    """The main one first. Raises ConfigError if a further one has its name."""
    further = parse_variants(config.model.variants)
    if main.name in [variant.name for variant in further]:
        raise ConfigError(
            f"variants has '{main.name}', which is the main variant (quantization). Name others."
        )
    variants = (main, *further)
    return tuple(
        VariantEngine(variant.name, _config_of(variant, config, variants, is_main=variant is main))
        for variant in variants
    )


def _config_of(
    variant: Variant, config: EngineConfig, all_of_them: tuple[Variant, ...], *, is_main: bool
) -> EngineConfig:
    others = tuple(other for other in all_of_them if other is not variant)
    config = replace(config, shared=SharedDevice(others=others))
    if is_main:
        return config
    cache = config.cache
    if variant.kv_cache_dtype:
        cache = replace(cache, kv_cache_dtype=variant.kv_cache_dtype, kv_cache_dtype_layers=())
    model = replace(
        config.model,
        quantization=variant.quantization,
        quantization_layers=(),
    )
    return replace(config, model=model, cache=cache)
