"""Which of the hosts in `rank_hosts` each replica has. Pure; read before an engine is started."""

from __future__ import annotations

from dataclasses import replace

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError


def hosts_of_a_replica(model: ModelConfig) -> int:
    """Beside the server's own: one for each further stage, or, of a single one, slice or share of
    long prompts."""
    if model.pipeline_parallel_size > 1:
        return model.pipeline_parallel_size - 1
    return max(model.tensor_parallel_size, model.context_parallel_size) - 1


def refuse_other_number_of_hosts(config: EngineConfig, replicas: int = 1) -> None:
    """Raises ConfigError unless so many replicas have as many parts of the model as hosts are
    named."""
    model, num_named = config.model, len(config.apart.hosts)
    each = hosts_of_a_replica(model)
    if not num_named or (each and num_named == replicas * each):
        return
    of_replicas = f", and data_parallel_size {replicas}" if replicas > 1 else ""
    per_replica = ", for each replica in turn" if replicas > 1 else ""
    raise ConfigError(
        f"rank_hosts names {num_named}, but pipeline_parallel_size is "
        f"{model.pipeline_parallel_size}, tensor_parallel_size {model.tensor_parallel_size} and "
        f"context_parallel_size {model.context_parallel_size}{of_replicas}. Each host has a stage "
        "of the model, or, without stages, a slice of every layer, or some rows of long prompts, "
        f"and this one the first{per_replica}: name {max(1, replicas * each)}, or set "
        f"pipeline_parallel_size to {1 + max(1, num_named // replicas)} (tensor_parallel_size is "
        "then how many ranks each host has)."
    )


def of_replica(config: EngineConfig, number: int) -> EngineConfig:
    """The settings of the engine of that replica, with the hosts that are its own: as many as each
    has, in the order in which they are named."""
    each = hosts_of_a_replica(config.model)
    own = config.apart.hosts[number * each : (number + 1) * each]
    return replace(config, apart=replace(config.apart, hosts=own))
