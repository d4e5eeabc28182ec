from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.testing.reference import Judge
from novacron.testing.tiny_models import make_tiny_gemma3_multimodal, make_tiny_model


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny checkpoint of a family, once per set of arguments."""
    made: dict[str, Path] = {}

    def make(family: str, **overrides: Any) -> Path:
        key = repr((family, sorted(overrides.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            if family == "gemma3_multimodal":
                make_tiny_gemma3_multimodal(folder)
            else:
                make_tiny_model(family, folder, **overrides)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def judge() -> Callable[[Path], Judge]:
    """Loads a checkpoint in transformers, once."""
    loaded: dict[Path, Judge] = {}

    def load(folder: Path) -> Judge:
        if folder not in loaded:
            loaded[folder] = Judge(folder)
        return loaded[folder]

    return load
