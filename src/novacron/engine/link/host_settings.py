"""What of an engine's settings is the business of the host that it runs on. Pure but for the model,
which is looked for here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.engine.model_path import resolve_model_path
from novacron.errors import ModelLoadError

HOST_KEYS: Final = (
    "model", "tokenizer", "packed_cache_size", "cache_dir", "num_threads", "region",
    "kv_cache_memory", "gpu_memory_utilization", "cpu_memory_utilization",
    "kv_ram_size", "kv_disk_size", "kv_disk_path",
    "encryption_key",
)  # fmt: skip

Part = TypeVar("Part", ModelConfig, CacheConfig)


def settings_of_host(
    wanted: EngineConfig, given: Mapping[str, object]
) -> tuple[EngineConfig, Path]:
    """The settings that a server wants, but for those that were given here, and where the model
    lies on this host. Raises ConfigError and ModelLoadError."""
    config = replace(wanted, model=_with(wanted.model, given), cache=_with(wanted.cache, given))
    try:
        return config, resolve_model_path(config.model.model)
    except ModelLoadError as error:
        raise ModelLoadError(
            f"On the engine's host: {error} Put the model at the same place there, or tell its "
            "novacron engine with --model where it lies."
        ) from error


def _with(part: Part, given: Mapping[str, object]) -> Part:
    own: dict[str, Any] = {
        field.name: given[field.name] for field in fields(part) if field.name in given
    }
    return replace(part, **own)
