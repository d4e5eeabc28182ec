from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.checkpoint import Checkpoint

Write = Callable[..., Path]


@pytest.mark.parametrize("num_files", [1, 3])
def test_reads_tensors_and_slices(
    num_files: int, tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    checkpoint = Checkpoint(write_checkpoint(tensors, num_files=num_files))
    assert checkpoint.names == set(tensors)
    assert len(checkpoint.files) == num_files
    assert checkpoint.dtype == "float32"
    for name, tensor in tensors.items():
        whole = (slice(None),) * tensor.dim()
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint.read(name, whole), tensor)
        part = (slice(2, 7), *whole[1:])
        assert torch.equal(checkpoint.read(name, part), tensor[2:7])


def test_a_missing_tensor_is_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    checkpoint = Checkpoint(write_checkpoint(tensors))
    with pytest.raises(ModelLoadError, match=r"'lm_tail.weight' is missing from model.safetensors"):
        checkpoint.shape("lm_tail.weight")


def test_a_truncated_file_is_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    path = write_checkpoint(tensors) / "model.safetensors"
    for size in (path.stat().st_size - 1, 100, 4, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ModelLoadError) as caught:
            Checkpoint(path.parent)
        assert str(path) in str(caught.value)
        assert "damaged or its download incomplete" in str(caught.value)


def test_a_missing_shard_is_named(tensors: dict[str, Tensor], write_checkpoint: Write) -> None:
    folder = write_checkpoint(tensors, num_files=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"missing: model-00002-of-00003\.safetensors"):
        Checkpoint(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"weight_map": [1]})])
def test_an_unreadable_index(
    content: str, tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    folder = write_checkpoint(tensors, num_files=2)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors\.index\.json cannot be read"):
        Checkpoint(folder)


def test_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"pickle files \(pytorch_model\.bin\)"):
        Checkpoint(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no weights found"):
        Checkpoint(tmp_path)
