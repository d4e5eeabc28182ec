"""What several ranks cannot do yet: refused where somebody asks for it."""

from __future__ import annotations

from novacron.config.engine import EngineConfig
from novacron.errors import ConfigError


def refuse_with_ranks(config: EngineConfig) -> None:
    """Raises ConfigError for settings that several ranks cannot follow."""
    size = config.model.tensor_parallel_size
    asked_for = {
        "quality_watch": config.watch.quality_watch > 0,
        "compilation": config.model.compilation != "off",
        "device cuda": config.model.device == "cuda",
    }
    refused = [what for what, is_asked_for in asked_for.items() if is_asked_for]
    if refused:
        raise ConfigError(
            f"tensor_parallel_size is {size}, which does not go together with "
            f"{', '.join(refused)} yet. Leave one of them out."
        )
