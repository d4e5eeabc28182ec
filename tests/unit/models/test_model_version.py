from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from novacron.models import model_version as module
from novacron.models.checkpoint import Checkpoint
from novacron.models.model_version import model_version

Write = Callable[..., Path]


def version_of(folder: Path) -> str:
    return model_version(Checkpoint(folder))


def test_names_the_content_and_nothing_else(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    folder = write_checkpoint(tensors)
    version = version_of(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    assert version_of(folder) == version

    tensors["model.norm.weight"][3] += 0.001
    assert version_of(write_checkpoint(tensors)) != version
    tensors["model.norm.weight"][3] -= 0.001
    assert version_of(write_checkpoint(tensors, rms_norm_eps=1e-6)) != version


def test_of_a_large_checkpoint_any_changed_tensor_or_time_shows(
    tensors: dict[str, Tensor], write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WHOLE_UP_TO_BYTES", 0)
    monkeypatch.setattr(module, "_SAMPLE_EVERY_BYTES", 64)
    monkeypatch.setattr(module, "_SAMPLE_BYTES", 4)
    path = write_checkpoint(tensors) / "model.safetensors"
    os.utime(path, (1, 1))
    version = version_of(path.parent)
    assert version_of(path.parent) == version

    os.utime(path, (2, 2))
    assert version_of(path.parent) != version

    for name in tensors:
        changed = {**tensors, name: tensors[name] * 1.01}
        write_checkpoint(changed)
        os.utime(path, (1, 1))
        assert version_of(path.parent) != version, name
