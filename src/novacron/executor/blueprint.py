"""What is known of a model, and of how it is going to be computed here, before a weight is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from novacron.config.engine import ModelConfig
from novacron.config.kv_layers import KVDtype
from novacron.executor.memory_plan import ModelShape
from novacron.executor.placement import choose_device, choose_dtype, choose_precision
from novacron.kernels.choice import choose_kernels
from novacron.kernels.table import Kernels
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.layers.attention import num_local_kv_heads
from novacron.models.model_files import read_model_files
from novacron.models.registry import Family, find_family
from novacron.models.weight_files import WeightFiles
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.runner.kv_tensors import name_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A checkpoint, and the device, precision and kernels chosen for it."""

    path: Path
    architecture: str
    family: Family
    config: DecoderConfig
    eos_token_ids: tuple[int, ...]
    checkpoint: WeightFiles
    device: torch.device
    dtype: torch.dtype
    precision: WeightPrecision
    kernels: Kernels

    @property
    def dtype_name(self) -> KVDtype:
        return name_of(self.dtype)

    def build(self, device: torch.device) -> Decoder:
        """The decoder without its weights; on the device "meta" it takes no memory."""
        return build_decoder(
            self.config,
            SINGLE,
            LocalCommunicator(),
            self.kernels,
            precision=self.precision,
            dtype=self.dtype,
            device=device,
        )

    def of_draft(self, path: Path) -> Blueprint:
        """That of a model which guesses for this one: computed in the same way, in the same
        precision. Raises ModelLoadError."""
        files = read_model_files(path)
        architecture, family = find_family(files.config)
        return replace(
            self,
            path=path,
            architecture=architecture,
            family=family,
            config=family.read_config(files.config),
            eos_token_ids=files.eos_token_ids,
            checkpoint=files.open_weights(),
        )

    def shape(self) -> ModelShape:
        config, decoder = self.config, self.build(torch.device("meta"))
        return ModelShape(
            name=str(self.path),
            precision=self.dtype_name if decoder.precision == "none" else decoder.precision,
            weight_bytes=decoder.weight_bytes,
            num_layers=len(config.layers),
            num_heads=config.num_heads,
            num_kv_heads=num_local_kv_heads(config.num_kv_heads, SINGLE),
            head_dim=config.head_dim,
            hidden_size=config.hidden_size,
            ffn_width=max(_ffn_width(config, layer) for layer in config.layers),
            vocab_size=config.vocab_size,
            dtype=self.dtype_name,
            value_bytes=self.dtype.itemsize,
            context_length=config.context_length,
            longest_context=config.longest_context,
        )


def draw_blueprint(model: ModelConfig, path: Path, num_threads: int) -> Blueprint:
    """Raises ModelLoadError and ConfigError."""
    device = choose_device(model)
    files = read_model_files(path)
    architecture, family = find_family(files.config)
    config = family.read_config(files.config)
    checkpoint = files.open_weights()
    dtype = choose_dtype(model, files.config.dtype or checkpoint.dtype, device)
    precision = choose_precision(model)
    if files.rounded_by and precision.rounds:
        logger.warning(
            "%s: weights that were rounded already (%s) are rounded again, to %s. Rounding the "
            "original ones once loses less.", path, files.rounded_by, model.quantization,
        )  # fmt: skip
    elif files.rounded_by:
        logger.info(
            "%s: weights stored by %s are held in %s", path, files.rounded_by, name_of(dtype)
        )
    blueprint = Blueprint(
        path=path,
        architecture=architecture,
        family=family,
        config=config,
        eos_token_ids=files.eos_token_ids,
        checkpoint=checkpoint,
        device=device,
        dtype=dtype,
        precision=precision,
        kernels=choose_kernels(model.kernels, device, dtype, num_threads),
    )
    if precision.levels.overrides:
        matrices = blueprint.build(torch.device("meta")).matrices
        precision.levels.check_patterns([name for matrix in matrices for name in matrix.names])
    return blueprint


def _ffn_width(config: DecoderConfig, layer: LayerConfig) -> int:
    """Values of one token between the matrices of a layer's feed-forward part: gate, up and their
    product; with experts, these of each that is chosen, and what each of them gives."""
    if layer.moe is None:
        return 3 * config.ffn_size
    moe = layer.moe
    of_experts = moe.experts_per_token * (3 * moe.ffn_size + config.hidden_size)
    return of_experts + 3 * moe.shared_ffn_size
