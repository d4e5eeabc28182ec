"""Writes a model in other precisions into a folder, which can be ended at any point and goes on.

A file appears whole or not at all, under its final name, and is kept when the work goes on. While
it lasts, `quantize.json` says what the work is, and there is no config.json: it is written last, so
a folder that has one is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from novacron.errors import ConfigError
from novacron.kernels.linear import Quantization, Rounded
from novacron.models.hf_config import UNFINISHED
from novacron.models.model_version import model_version
from novacron.models.rewriting.compressed_form import can_hold, compress, quantization_config
from novacron.models.rewriting.plan import Shard, plan_shards
from novacron.models.rewriting.recipe import SECTION, Recipe
from novacron.models.rewriting.safetensors_file import write_json, write_safetensors
from novacron.models.rewriting.source import RewritingSource
from novacron.models.weight_files import RoundedFiles, WeightFiles

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_VERSION = 1  # of what a recipe makes of weights; changes with it

Rounder = Callable[[str, Tensor, Quantization], Rounded]


@dataclass(frozen=True, kw_only=True)
class RewritingOptions:
    """`round_weight` gets the name of a tensor, the tensor, and the form that it is to have."""

    recipe: Recipe
    forms: Mapping[str, Quantization]
    shard_bytes: int
    round_weight: Rounder


@torch.inference_mode()
def rewrite_model(
    source: RewritingSource,
    out: Path,
    options: RewritingOptions,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Needs memory for one matrix at a time. Raises ConfigError if the folder holds something else,
    and ModelLoadError if the source cannot be read."""
    weights = source.weights
    shards = plan_shards(weights, options.forms, options.shard_bytes)
    _begin(weights, out, options)
    total = sum(one.num_bytes for shard in shards for one in shard)
    done = 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = [tensor for one in shard for tensor in one.tensors]
        weight_map |= dict.fromkeys((tensor.name for tensor in tensors), name)
        if not (out / name).exists():
            step = _Steps(done, total, progress)
            contents = _contents(weights, shard, options, step)
            write_safetensors(out / name, tensors, contents)
        done += sum(one.num_bytes for one in shard)
        progress(done / total)
    write_json(out / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    for path in source.copied:
        shutil.copyfile(path, out / path.name)
    for name, text in source.written.items():
        (out / name).write_text(text)
    write_json(out / _CONFIG, _config(source, shards, options.recipe))
    (out / UNFINISHED).unlink()


def _begin(weights: WeightFiles, out: Path, options: RewritingOptions) -> None:
    if (out / _CONFIG).exists():
        raise ConfigError(f"{out} holds a model already; choose another folder or remove it.")
    state = {
        "version": _VERSION,
        "source": model_version(weights),
        "shard_bytes": options.shard_bytes,
        **options.recipe.as_json(),
    }
    if (out / UNFINISHED).exists():
        if _read_state(out / UNFINISHED) != state:
            raise ConfigError(
                f"{out} holds the beginning of another model or precision ({UNFINISHED} there says "
                "which). Choose another folder, or remove it."
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / UNFINISHED, state)


def _read_state(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError:  # of another program
        return None


@dataclass
class _Steps:
    done: int
    total: int
    progress: Callable[[float], None]

    def add(self, num_bytes: int) -> None:
        self.done += num_bytes
        self.progress(self.done / self.total)


def _contents(
    weights: WeightFiles, shard: Shard, options: RewritingOptions, steps: _Steps
) -> Iterator[Tensor]:
    for one in shard:
        if one.quantization is None:
            weight = weights.read(one.source, (slice(None),) * len(weights.shape(one.source)))
            yield weight.to(getattr(torch, weights.dtype_of(one.source)))
        else:
            rounded = _stored(weights, one.source, one.quantization)
            if rounded is None:
                weight = weights.read(one.source, (slice(None), slice(None)))
                rounded = options.round_weight(one.source, weight, one.quantization)
            rows, columns = weights.shape(one.source)
            yield from compress(rounded, (rows, columns), one.quantization)
        steps.add(one.num_bytes)


def _stored(weights: WeightFiles, name: str, quantization: Quantization) -> Rounded | None:
    """What the source holds, if it is in the very form that is wanted."""
    if not isinstance(weights, RoundedFiles):
        return None
    stored = weights.rounded(name, slice(None), quantization)
    return stored if stored is not None and can_hold(stored, quantization) else None


def _config(source: RewritingSource, shards: tuple[Shard, ...], recipe: Recipe) -> dict[str, Any]:
    modules: dict[Quantization, list[str]] = {}
    ignored: list[str] = []
    for one in (one for shard in shards for one in shard):
        module = one.source.removesuffix(".weight")
        if one.quantization is not None:
            modules.setdefault(one.quantization, []).append(module)
        elif len(one.tensors[0].shape) == 2:
            ignored.append(module)
    config: dict[str, Any] = dict(source.config)
    if modules:
        config["quantization_config"] = quantization_config(modules, ignored)
    config[SECTION] = recipe.as_json()
    return config
