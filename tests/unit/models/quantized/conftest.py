from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized_checkpoint import dense
from novacron.models.weight_files import WeightFiles


@pytest.fixture
def open_packed(tmp_path: Path) -> Callable[..., WeightFiles]:
    """Writes the parts of a module "m" beside a plain norm, and opens them as dense."""

    def write(parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> WeightFiles:
        tensors = {f"m.{part}": tensor.contiguous() for part, tensor in parts.items()}
        tensors["norm.weight"] = torch.ones(4, dtype=torch.bfloat16)
        save_file(tensors, tmp_path / "model.safetensors")
        return dense(Checkpoint(tmp_path), HFConfig({"quantization_config": config}, "config.json"))

    return write
