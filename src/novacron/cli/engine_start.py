"""From settings to an engine process on its way. Imports no web framework and no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from novacron.config.engine import EngineConfig, ModelConfig
from novacron.config.load import Settings
from novacron.engine.model_path import resolve_model_path
from novacron.engine.process_client import ProcessClient
from novacron.engine.recovering_client import RecoveringClient, StartedClient

if TYPE_CHECKING:  # imported at run time only where there are variants
    from novacron.engine.variants_client import VariantsClient

BUNDLED_NAME = "novacron-demo"


ServedClient = StartedClient


def spawn_engine(settings: Settings) -> tuple[ServedClient, Settings]:
    """A client whose engine process has been started, and the settings with the model's name.

    Raises ModelLoadError if there is no such model, and ConfigError for variants that contradict.
    """
    path = resolve_model_path(settings.engine.model.model)
    model = _named(settings.engine.model, path)
    settings = replace(settings, engine=replace(settings.engine, model=model))
    client = _make_client(settings.engine, path)
    client.spawn()
    scheduler = settings.engine.scheduler
    return RecoveringClient(
        client,
        timeout_s=settings.server.recovery_timeout,
        most_waiting=scheduler.max_num_seqs + scheduler.max_queued_requests,
        seed=settings.engine.model.seed,
    ), settings


def _make_client(config: EngineConfig, path: Path) -> ProcessClient | VariantsClient:
    if not config.model.variants:
        return ProcessClient(config, path)

    from novacron.engine.variant_engines import main_variant, variant_engines
    from novacron.engine.variants_client import VariantsClient

    variants = variant_engines(config, main_variant(config.model, path))
    return VariantsClient(variants, partial(ProcessClient, model_path=path), config.watch)


def _named(model: ModelConfig, path: Path) -> ModelConfig:
    if model.served_model_name:
        return model
    if not model.model:
        return replace(model, served_model_name=(BUNDLED_NAME,))
    # A file may be a link to one with a meaningless name, as in the hub's cache.
    name = path.name if path.is_file() else path.resolve().name
    return replace(model, served_model_name=(name,))
