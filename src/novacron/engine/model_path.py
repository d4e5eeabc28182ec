"""From what a user names to the files of a model."""

from __future__ import annotations

from pathlib import Path

from novacron.demo import bundled_model_path
from novacron.errors import ModelLoadError
from novacron.models.hf_config import UNFINISHED
from novacron.models.hub import download


def resolve_model_path(model: str) -> Path:
    """What `model` means: nothing, the bundled model; a folder or a GGUF file, itself; else a name
    on the Hugging Face hub, taken from the local cache or fetched. Raises ModelLoadError."""
    if not model:
        return bundled_model_path()
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.suffix == ".gguf":
        raise ModelLoadError(f"There is no file {path}.")
    if not path.is_dir():
        return download(model)
    if (path / UNFINISHED).exists() and not (path / "config.json").exists():
        raise ModelLoadError(
            f"{path} is not whole: novacron quantize has not finished it. Call that again as "
            "before, and it goes on."
        )
    return path
