"""What the files of a model say of it, in either of two layouts: a Hugging Face folder, with
config.json and safetensors, or GGUF, with everything in one file or in several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from novacron.models.checkpoint import Checkpoint
from novacron.models.gguf_checkpoint import GGUFCheckpoint
from novacron.models.gguf_config import read_gguf_config
from novacron.models.gguf_eos import read_gguf_eos_token_ids
from novacron.models.gguf_model import GGUFModel
from novacron.models.hf_config import HFConfig, read_eos_token_ids, read_hf_config
from novacron.models.quantized_checkpoint import dense, quantization_method
from novacron.models.rewriting.recipe import Recipe, read_recipe
from novacron.models.weight_files import WeightFiles


@dataclass(frozen=True)
class ModelFiles:
    """`open_weights` is called once the configuration has been found good. It raises
    ModelLoadError. `rounded_by` is the method that config.json says has rounded the weights, and
    `recipe` how we did, if it was us."""

    config: HFConfig
    eos_token_ids: tuple[int, ...]
    open_weights: Callable[[], WeightFiles]
    rounded_by: str | None = None
    recipe: Recipe | None = None


def read_model_files(path: Path) -> ModelFiles:
    """Raises ModelLoadError."""
    if path.is_file():
        file = GGUFModel(path)
        eos_token_ids = read_gguf_eos_token_ids(file)
        return ModelFiles(read_gguf_config(file), eos_token_ids, lambda: GGUFCheckpoint(file))
    config = read_hf_config(path)
    return ModelFiles(
        config,
        read_eos_token_ids(path),
        lambda: dense(Checkpoint(path), config),
        quantization_method(config),
        read_recipe(config),
    )
