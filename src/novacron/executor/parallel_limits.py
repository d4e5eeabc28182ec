"""What several ranks cannot do yet: refused where somebody asks for it."""

from __future__ import annotations

from novacron.config.engine import EngineConfig
from novacron.config.host_shares import refuse_other_number_of_hosts
from novacron.errors import ConfigError
from novacron.executor.blueprint import dims_of


def refuse_with_ranks(config: EngineConfig) -> None:
    """Raises ConfigError for settings that several ranks cannot follow: those of an engine, with
    the hosts of its own."""
    model = config.model
    refuse_other_number_of_hosts(config)
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
    if config.apart.hosts:
        sizes["hosts of its ranks"] = 1 + len(config.apart.hosts)
        asked_for |= {
            "variants (start a server for each precision)": bool(
                model.variants or config.shared.others
            ),
            "activation_compression": config.apart.compression != "none" and has_rows,
            "speculative_method draft": (
                config.speculative.speculative_method == "draft" and has_rows
            ),
            "data_parallel_size": model.data_parallel_size > 1 and has_rows,
        }
    refused = [what for what, is_asked_for in asked_for.items() if is_asked_for]
    if refused:
        several = " and ".join(f"{name} is {size}" for name, size in sizes.items() if size > 1)
        raise ConfigError(
            f"{several}, which does not go together with {', '.join(refused)} yet. Leave one of "
            "them out."
        )
