"""Against the libraries that define the formats: files/make.py has them pack matrices and read them
back, and we read the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized_checkpoint import dense

FILES = sorted((Path(__file__).parent / "files").glob("*.safetensors"))
# All are equal bit by bit, but for this: the library multiplies with the rounded 1 / 127.
RELATIVE_ERRORS = {"bitsandbytes_int8": 2**-22}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_means_what_its_library_says(path: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(path)
    with safe_open(path, framework="pt") as file:
        config = {"quantization_config": json.loads(file.metadata()["quantization_config"])}
    checkpoint = dense(Checkpoint(tmp_path), HFConfig(config, "config.json"))
    expected = checkpoint.read("dense", (slice(None), slice(None)))
    found = checkpoint.read("m.weight", (slice(None), slice(None))).to(expected.dtype)
    assert checkpoint.names == {"m.weight", "dense"}
    torch.testing.assert_close(found, expected, rtol=RELATIVE_ERRORS.get(path.stem, 0), atol=0)
