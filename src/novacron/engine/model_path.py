"""From what a user names to a folder of files."""

from __future__ import annotations

from pathlib import Path

from novacron.demo import bundled_model_path
from novacron.models.hub import download


def resolve_model_path(model: str) -> Path:
    """The folder that `model` means: nothing, the bundled model; a folder, itself; else a name on
    the Hugging Face hub, taken from the local cache or fetched. Raises ModelLoadError."""
    if not model:
        return bundled_model_path()
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else download(model)
