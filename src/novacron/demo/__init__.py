"""The bundled demo model: its facts, its tasks and its folder of weights.

Imports nothing from the rest of the package and needs no torch.
"""

from __future__ import annotations

from pathlib import Path


def bundled_model_path() -> Path:
    """The Hugging Face folder of the model that comes with the package."""
    return Path(__file__).parent / "model"
