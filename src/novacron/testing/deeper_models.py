"""Models that say what another one says, at a higher price: targets for that one as a draft model.

Layers are added whose last matrices are zero, so that they add nothing to the residual stream. With
noise on the weights the two agree as seldom as is wanted.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_LAST_MATRICES = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def make_deeper_model(source: Path, folder: Path, *, num_layers: int, noise: float = 0.0) -> Path:
    """Write a copy of the Llama-like checkpoint `source`, of one file, with `num_layers` layers.

    The added ones hold the weights of the others in turn, but for the zeros. `noise` is added to
    every matrix of the source's layers, as a share of its standard deviation.
    """
    weights = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    if noise:
        weights = {name: _noisy(name, w, noise, generator) for name, w in weights.items()}
    config = json.loads((source / "config.json").read_text())
    old_layers = config["num_hidden_layers"]
    for name, weight in list(weights.items()):
        found = _LAYER.fullmatch(name)
        if found is None:
            continue
        for layer in range(int(found[1]) + old_layers, num_layers, old_layers):
            is_last = found[2] in _LAST_MATRICES
            copy = torch.zeros_like(weight) if is_last else weight.clone()
            weights[f"model.layers.{layer}.{found[2]}"] = copy
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, folder)
    config["num_hidden_layers"] = num_layers
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _noisy(name: str, weight: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    if _LAYER.fullmatch(name) is None or weight.dim() < 2:
        return weight
    drawn = torch.randn(weight.shape, generator=generator) * weight.float().std() * noise
    return (weight.float() + drawn).to(weight.dtype)
