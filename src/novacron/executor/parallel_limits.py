"""What several ranks cannot do yet: refused where somebody asks for it."""

from __future__ import annotations

from novacron.config.engine import EngineConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import dims_of
from novacron.parallel.dims import ParallelDims


def refuse_with_ranks(config: EngineConfig) -> None:
    """Raises ConfigError for settings that several ranks cannot follow."""
    model = config.model
    _refuse_with_hosts(config)
    num_ranks = dims_of(model).num_ranks
    if num_ranks == 1:
        return
    sizes = {
        "tensor_parallel_size": model.tensor_parallel_size,
        "pipeline_parallel_size": model.pipeline_parallel_size,
        "context_parallel_size": model.context_parallel_size,
    }
    has_rows = model.context_parallel_size > 1
    if has_rows and num_ranks > model.context_parallel_size:
        raise ConfigError(
            f"context_parallel_size is {model.context_parallel_size}, which does not go together "
            "with tensor_parallel_size and pipeline_parallel_size yet: its ranks have the whole "
            "model each. Leave one of them out."
        )
    asked_for = {
        "quality_watch": config.watch.quality_watch > 0,
        "compilation": model.compilation != "off",
        "device cuda": model.device == "cuda",
    }
    if model.pipeline_parallel_size > 1 or config.apart.hosts:
        asked_for |= {
            "variants": bool(model.variants or config.shared.others),
            "speculative_method draft": config.speculative.speculative_method == "draft",
        }
    if config.apart.hosts:
        sizes["hosts of its ranks"] = 1 + len(config.apart.hosts)
        asked_for |= {
            "data_parallel_size": model.data_parallel_size > 1,
            "activation_compression": config.apart.compression != "none" and has_rows,
        }
    refused = [what for what, is_asked_for in asked_for.items() if is_asked_for]
    if refused:
        several = " and ".join(f"{name} is {size}" for name, size in sizes.items() if size > 1)
        raise ConfigError(
            f"{several}, which does not go together with {', '.join(refused)} yet. Leave one of "
            "them out."
        )


def _refuse_with_hosts(config: EngineConfig) -> None:
    num_hosts, dims = len(config.apart.hosts), dims_of(config.model)
    size = num_hosts + 1
    if not num_hosts or dims in (
        ParallelDims(tensor=size), ParallelDims(pipeline=size), ParallelDims(context=size),
    ):  # fmt: skip
        return
    raise ConfigError(
        f"rank_hosts names {num_hosts}, but pipeline_parallel_size is {dims.pipeline}, "
        f"tensor_parallel_size {dims.tensor} and context_parallel_size {dims.context}: each host "
        "has a stage of the model, or a slice of every layer, or some rows of long prompts, and "
        f"this one the first. Set one of the three to {size}, and leave the others out."
    )
