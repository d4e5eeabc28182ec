"""From settings to an engine process on its way. Imports no web framework and no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from novacron.config.engine import ModelConfig
from novacron.config.load import Settings
from novacron.engine.model_path import resolve_model_path
from novacron.engine.process_client import ProcessClient

BUNDLED_NAME = "novacron-demo"


def spawn_engine(settings: Settings) -> tuple[ProcessClient, Settings]:
    """A client whose engine process has been started, and the settings with the model's name.

    Raises ModelLoadError if there is no such model.
    """
    path = resolve_model_path(settings.engine.model.model)
    model = _named(settings.engine.model, path)
    settings = replace(settings, engine=replace(settings.engine, model=model))
    client = ProcessClient(settings.engine, path)
    client.spawn()
    return client, settings


def _named(model: ModelConfig, path: Path) -> ModelConfig:
    if model.served_model_name:
        return model
    if not model.model:
        return replace(model, served_model_name=(BUNDLED_NAME,))
    # A file may be a link to one with a meaningless name, as in the hub's cache.
    name = path.name if path.is_file() else path.resolve().name
    return replace(model, served_model_name=(name,))
