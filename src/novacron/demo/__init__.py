"""The bundled demo model: its facts, its tasks and its folder of weights.

Imports nothing from the rest of the package and needs no torch.
"""

from __future__ import annotations

from pathlib import Path


def bundled_model_path() -> Path:
    """The Hugging Face folder of the model that comes with the package."""
    return Path(__file__).parent / "model"


def bundled_sensitivity_path() -> Path:
    """What each of its matrices loses at each precision: novacron quantize-plan --sensitivity."""
    return Path(__file__).parent / "sensitivity.json"
