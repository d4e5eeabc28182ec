"""Keys in configuration files that are not ours: vLLM's flags, and the schema under `llm_engine:`.

Three things can become of such a key. It sets one of our settings. Or it changes nothing here
although we understand it: then it is accepted, checked and reported. Or it asks for something that
would change results or capacity and that this version cannot do: then only the value that means
"off" is accepted, for silence would be a lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from novacron.config.quantities import parse_bits_per_s, parse_bytes, parse_duration_s
from novacron.errors import ConfigError


@dataclass(frozen=True)
class Sets:
    """Another name of one of our settings."""

    key: str


@dataclass(frozen=True)
class NoEffect:
    """Understood, checked, and without consequence."""

    check: Callable[[object], None]
    reason: str


@dataclass(frozen=True)
class OnlyOff:
    """Accepted only with a value that asks for nothing."""

    values: tuple[object, ...]
    reason: str


Treatment = Sets | NoEffect | OnlyOff


def _is_switch(value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError("expected true or false")


def _is_count(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("expected a whole number from 1")


def _is_text(value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError("expected a text")


def _is_cpu(value: object) -> None:
    """Cores, or thousandths of a core with an m, as in Kubernetes."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?m?", str(value)) is None:
        raise ConfigError("expected cores such as 16, or 500m for half of one")


def _is_size(value: object) -> None:
    parse_bytes(str(value))


def _is_duration(value: object) -> None:
    parse_duration_s(str(value))


def _is_rate(value: object) -> None:
    parse_bits_per_s(str(value))


_DEPLOYED = "what it runs on is decided where it is deployed"
_SINGLE_MACHINE = "on one machine there is no network to set up"

VLLM: Mapping[str, Treatment] = {
    "model_tag": Sets("model"),
    "model_path": Sets("model"),
    "kv_cache_memory_bytes": Sets("kv_cache_memory"),
    "allowed_origins": Sets("cors_allow_origins"),
    "uvicorn_log_level": Sets("log_level"),
    "trust_remote_code": OnlyOff((False,), "NovaCron never runs code from a model's folder"),
    "enforce_eager": NoEffect(_is_switch, "nothing is captured, so this is always so"),
    "enable_auto_tool_choice": NoEffect(_is_switch, "always on"),
}

LLM_ENGINE: Mapping[str, Treatment] = {
    "coordinator.replicas": NoEffect(_is_count, _DEPLOYED),
    "coordinator.resources.cpu": NoEffect(_is_cpu, _DEPLOYED),
    "coordinator.resources.memory": NoEffect(_is_size, _DEPLOYED),
    "coordinator.resources.storage": NoEffect(_is_size, _DEPLOYED),
    "workers.replicas": NoEffect(_is_count, _DEPLOYED),
    "workers.resources.cpu": NoEffect(_is_cpu, _DEPLOYED),
    "workers.resources.memory": NoEffect(_is_size, _DEPLOYED),
    "workers.resources.gpu": NoEffect(_is_text, _DEPLOYED),
    "workers.resources.storage": NoEffect(_is_size, _DEPLOYED),
    "workers.resources.network_bandwidth": NoEffect(_is_rate, _DEPLOYED),
    "model.model_id": Sets("model"),
    "model.quantization": Sets("quantization"),
    "model.sharding.tensor_parallel": Sets("tensor_parallel_size"),
    "model.sharding.pipeline_parallel": Sets("pipeline_parallel_size"),
    "model.sharding.sequence_parallel": Sets("context_parallel_size"),
    "performance.max_batch_size": Sets("max_num_seqs"),
    "performance.target_latency": NoEffect(_is_duration, "a goal for scaling out, not a limit"),
    "performance.cache_size": Sets("kv_cache_memory"),
    "performance.compression": NoEffect(_is_switch, "cached blocks stay as they are"),
    "networking.transport": NoEffect(_is_text, _SINGLE_MACHINE),
    "networking.compression": NoEffect(_is_switch, _SINGLE_MACHINE),
    "networking.priority_queuing": NoEffect(_is_switch, _SINGLE_MACHINE),
    "networking.bandwidth_limit": NoEffect(_is_rate, _SINGLE_MACHINE),
}
