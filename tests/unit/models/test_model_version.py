from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from novacron.models import model_version as module
from novacron.models.checkpoint import Checkpoint
from novacron.models.model_files import read_model_files
from novacron.models.model_version import model_version
from novacron.testing.gguf_models import Change, write_gguf
from novacron.testing.tiny_models import make_tiny_model

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


def test_of_a_gguf_file_all_of_its_content_counts(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path / "model")

    def version(held_as: str, also: Change) -> str:
        file = write_gguf(folder, tmp_path / "model.gguf", held_as, also=also)
        return model_version(read_model_files(file).open_weights())

    usual = version("F16", lambda writer: None)
    assert version("F16", lambda writer: None) == usual
    assert version("F16", lambda writer: writer.add_rope_scaling_factor(2.0)) != usual
    assert version("BF16", lambda writer: None) != usual


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
