"""A model as it would be held here with given settings, before a weight is read or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.executor.blueprint import draw_blueprint, refuse_unknown_levels
from novacron.executor.placement import choose_device, choose_dtype, choose_precision
from novacron.executor.precision_units import precision_names, units_of
from novacron.kernels.choice import choose_kernels
from novacron.kernels.kv_format import LayerFormat, choose_kv_formats, describe_kv_formats
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.hf_config import HFConfig
from novacron.models.precision_report import Part, report_precision
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.quantization.kv_precision import kv_precision
from novacron.quantization.levels import Level
from novacron.quantization.precision_map import PrecisionMap
from novacron.runner.kv_tensors import name_of, plain_formats


@dataclass(frozen=True, kw_only=True)
class KVStudy:
    """What a token takes in the KV cache, scales and alignment included, and what it would take in
    the precision that computes."""

    precision: str  # or a description of several
    is_chosen: bool  # by the cache's own settings, and not by the profile
    bytes_per_token: float
    plain_bytes_per_token: float


@dataclass(frozen=True, kw_only=True)
class PrecisionStudy:
    """`parts` are all of the weights. `levels` also has what is not one: the KV cache, inputs.
    `held` has the precision of each unit whose loss can be measured, as quality.sensitivity wants
    it."""

    model: str
    kernels: str
    stored: Level
    computed: str  # of torch's dtypes
    levels: PrecisionMap
    parts: tuple[Part, ...]
    kv: KVStudy
    held: Mapping[str, tuple[str, ...]]

    @property
    def num_values(self) -> int:
        return sum(part.num_values for part in self.parts)

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)


def study_model(model: ModelConfig, cache: CacheConfig, path: Path) -> PrecisionStudy:
    """Raises ModelLoadError and ConfigError."""
    blueprint = draw_blueprint(model, path, 1)
    decoder = blueprint.build(torch.device("meta"))
    name = f"{path} ({blueprint.architecture})"
    return _study(name, decoder, blueprint.precision, blueprint.stored_level, cache)


def study_shape(
    model: ModelConfig, cache: CacheConfig, name: str, config: Mapping[str, Any]
) -> PrecisionStudy:
    """Of weights that nobody has, in bfloat16; `config` is that of a config.json."""
    hf_config = HFConfig(config, f"the shape {name}")
    architecture, family = find_family(hf_config)
    device, precision = choose_device(model), choose_precision(model)
    dtype = choose_dtype(model, "bfloat16", device)
    kernels = choose_kernels(model.kernels, device, dtype, 1)
    refuse_unknown_levels(precision, kernels)
    decoder = build_decoder(
        family.read_config(hf_config),
        SINGLE,
        LocalCommunicator(),
        kernels,
        precision=precision,
        dtype=dtype,
        device=torch.device("meta"),
    )
    precision.check_patterns(decoder.matrices)
    return _study(f"a shape of {name} ({architecture})", decoder, precision, "bf16", cache)


def _study(
    model: str, decoder: Decoder, precision: WeightPrecision, stored: Level, cache: CacheConfig
) -> PrecisionStudy:
    return PrecisionStudy(
        model=model,
        kernels=decoder.kernels.name,
        stored=stored,
        computed=str(decoder.dtype).removeprefix("torch."),
        levels=precision.levels,
        parts=report_precision(decoder, precision, stored),
        kv=_study_cache(decoder, precision.levels, cache),
        held={
            unit.name: precision_names(decoder, unit, precision.group_size)
            for unit in units_of(decoder)
        },
    )


def _study_cache(decoder: Decoder, levels: PrecisionMap, cache: CacheConfig) -> KVStudy:
    config = decoder.config
    auto = kv_precision(levels, name_of(decoder.dtype))
    formats = choose_kv_formats(cache, len(config.layers), auto)

    def bytes_per_token(layers: Sequence[LayerFormat]) -> float:
        of_one_head = sum(layer.block_bytes(cache.block_size, config.head_dim) for layer in layers)
        return config.num_kv_heads * of_one_head / cache.block_size

    return KVStudy(
        precision=describe_kv_formats(formats),
        is_chosen=formats != choose_kv_formats(CacheConfig(), len(config.layers), auto),
        bytes_per_token=bytes_per_token(formats),
        plain_bytes_per_token=bytes_per_token(plain_formats(config, decoder.dtype)),
    )
