"""What is known of a model, and of how it is going to be computed here, before a weight is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from novacron.config.kv_layers import KVDtype, KVPrecision
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.memory_plan import ModelShape
from novacron.executor.placement import choose_device, choose_dtype, choose_precision
from novacron.kernels.choice import choose_kernels
from novacron.kernels.table import Kernels
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.gguf_checkpoint import GGUFCheckpoint
from novacron.models.layer_costs import stages_of
from novacron.models.layers.attention import num_local_kv_heads
from novacron.models.model_files import read_model_files
from novacron.models.precision_report import report_precision
from novacron.models.rank_shares import (
    refuse_cut_groups,
    refuse_empty_stages,
    refuse_uneven_shares,
)
from novacron.models.registry import Family, find_family
from novacron.models.rewriting.recipe import Recipe
from novacron.models.weight_files import WeightFiles
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import Communicator, LocalCommunicator
from novacron.parallel.dims import ALONE, ParallelDims
from novacron.parallel.groups import ParallelGroup
from novacron.parallel.stages import Stage, whole
from novacron.quantization.kv_precision import kv_precision
from novacron.quantization.levels import ROUNDED, Level
from novacron.quantization.precision_map import PrecisionMap
from novacron.runner.kv_tensors import name_of

logger = logging.getLogger(__name__)

_BEST_ON_ONE_HOST = 1  # ADR 31
META = torch.device("meta")
_STORED: dict[str, Level] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A checkpoint, and the device, precision and kernels chosen for it; and which of the ranks
    that share it this is, with the way to the others of its stage."""

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
    dims: ParallelDims = ALONE
    steps_in_flight: int = 1
    rank: int = 0
    stages: tuple[Stage, ...] = ()
    communicator: Communicator = field(default_factory=LocalCommunicator)

    @property
    def group(self) -> ParallelGroup:
        """This rank among those that have slices of the same layers."""
        return self.dims.group_of(self.rank)

    @property
    def rows_group(self) -> ParallelGroup:
        """This rank among those that compute other rows with the same weights."""
        return self.dims.rows_of(self.rank)

    @property
    def stage(self) -> Stage:
        """Of this rank. Without `stages` there is one, with all layers."""
        if not self.stages:
            return whole(len(self.config.layers))
        return self.stages[self.dims.stage_of(self.rank)]

    @property
    def dtype_name(self) -> KVDtype:
        return name_of(self.dtype)

    @property
    def kv_precision(self) -> KVPrecision:
        """Of keys and values, unless the settings of the cache name another."""
        return kv_precision(self.precision.levels, self.dtype_name)

    @property
    def stored_level(self) -> Level:
        """The checkpoint's precision; of an unusual one, the finest that loading makes of it."""
        return _STORED.get(self.checkpoint.dtype, "fp32")

    def build(self, device: torch.device) -> Decoder:
        """The decoder without its weights; on the device "meta" it takes no memory."""
        return build_decoder(
            self.config,
            self.group,
            self.communicator,
            self.kernels,
            precision=self.precision,
            stage=self.stage,
            dtype=self.dtype,
            device=device,
        )

    @property
    def num_parameters(self) -> int:
        """Of all ranks."""
        alone = replace(self, dims=ALONE, rank=0, stages=())
        return alone.build(META).num_parameters

    def of_rank(self, rank: int, dims: ParallelDims, stages: tuple[Stage, ...] = ()) -> Blueprint:
        """The part of one of the ranks, which is alone so far, in these stages, or those that are
        best for equal hosts. Raises ConfigError if the model cannot be shared out so that the
        result is that of one rank."""
        refuse_uneven_shares(self.config, dims.tensor)
        refuse_empty_stages(self.config, dims.pipeline)
        uncut = replace(self, dims=replace(dims, pipeline=1))
        decoder = uncut.build(META)
        refuse_cut_groups(decoder)
        if dims.pipeline == 1:
            return replace(uncut, rank=rank)
        stages = stages or stages_of(decoder, dims.pipeline)
        return replace(self, dims=dims, rank=rank, stages=stages)

    def all_stages(self) -> Decoder:
        """This rank's slices in all stages, without memory: what they have together."""
        slices = ParallelDims(self.dims.tensor)
        part = replace(self, dims=slices, rank=self.group.rank, stages=())
        return part.build(META)

    def slots_elsewhere(self, own: Decoder) -> frozenset[str]:
        """Names of what stages other than that of the decoder load."""
        if self.stage.count == 1:
            return frozenset()
        names = {slot.name for slot in self.all_stages().weight_slots()}
        return frozenset(names - {slot.name for slot in own.weight_slots()})

    def joined_by(self, communicator: Communicator) -> Blueprint:
        return replace(self, communicator=communicator)

    def with_precision(self, precision: WeightPrecision) -> Blueprint:
        return replace(self, precision=precision)

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
            stages=(),
        )

    def shape_of_part(self) -> ModelShape:
        """Of what the rank's host has, where there are several: a stage with all its slices, or of
        a single stage this rank's slice."""
        stage, group, whole = self.stage, self.group, self.shape()
        weight_bytes, ranks_each = self.build(META).weight_bytes, self.dims.ranks_each
        vocab_size = whole.vocab_size if stage.is_first else 0
        part = replace(
            whole,
            weight_bytes=weight_bytes * ranks_each,
            layers=stage.layers,
            vocab_size=vocab_size,
        )
        if ranks_each == group.size:
            return part
        return replace(
            part,
            num_heads=whole.num_heads // group.size,
            num_kv_heads=num_local_kv_heads(whole.num_kv_heads, group),
            ffn_width=-(-whole.ffn_width // group.size),
        )

    def shape(self) -> ModelShape:
        """Of all ranks together, which share the memory of one host."""
        config, decoder = self.config, self.all_stages()
        ranks = self.group.size
        return ModelShape(
            name=str(self.path),
            precision=self.dtype_name if decoder.precision == "none" else decoder.precision,
            weight_bytes=decoder.weight_bytes * ranks,
            num_layers=len(config.layers),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            hidden_size=config.hidden_size,
            ffn_width=max(_ffn_width(config, layer) for layer in config.layers),
            vocab_size=config.vocab_size,
            kv_precision=self.kv_precision,
            value_bytes=self.dtype.itemsize,
            context_length=config.context_length,
            longest_context=config.longest_context,
            num_ranks=ranks,
            num_stages=self.dims.pipeline,
            steps_in_flight=self.steps_in_flight,
        )


def dims_of(model: ModelConfig) -> ParallelDims:
    return ParallelDims(
        model.tensor_parallel_size, model.pipeline_parallel_size, model.context_parallel_size
    )


def steps_in_flight(model: ModelConfig) -> int:
    """How many steps stages compute at once, if there are several."""
    if model.pipeline_parallel_size == 1:
        return 1
    return model.pipeline_steps_in_flight or _BEST_ON_ONE_HOST


def draw_blueprint(model: ModelConfig, path: Path, num_threads: int) -> Blueprint:
    """Raises ModelLoadError and ConfigError."""
    device = choose_device(model)
    files = read_model_files(path)
    architecture, family = find_family(files.config)
    config = family.read_config(files.config)
    checkpoint = files.open_weights()
    dtype = choose_dtype(model, files.config.dtype or checkpoint.dtype, device)
    precision = choose_precision(model, files.recipe)
    rounded_by = files.rounded_by
    if isinstance(checkpoint, GGUFCheckpoint):
        rounded_by = checkpoint.rounded_to
    if rounded_by is not None:
        _say_what_becomes_of_stored(path, files.recipe, rounded_by, precision, model, dtype)
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
        steps_in_flight=steps_in_flight(model),
    )
    if precision.levels != PrecisionMap():
        _check_precision(blueprint)
    return blueprint


def _say_what_becomes_of_stored(
    path: Path,
    recipe: Recipe | None,
    rounded_by: str,
    precision: WeightPrecision,
    model: ModelConfig,
    dtype: torch.dtype,
) -> None:
    """Of weights that were rounded when they were written."""
    if recipe is not None and model.quantization == "auto":
        logger.info("%s: weights are held as they were written: %s", path, recipe.quantization)
    elif precision.rounds:
        logger.warning(
            "%s: weights that were rounded already (%s) are rounded again, to %s, unless they are "
            "stored in just that form. Rounding the original ones once loses less.",
            path, rounded_by, model.quantization,
        )  # fmt: skip
    else:
        logger.info("%s: weights stored by %s are held in %s", path, rounded_by, name_of(dtype))


def _check_precision(blueprint: Blueprint) -> None:
    """Say what becomes of levels that this machine cannot hold. Raises ConfigError."""
    refuse_unknown_levels(blueprint.precision, blueprint.kernels)
    decoder = blueprint.build(META)
    blueprint.precision.check_patterns(decoder.matrices)
    for part in report_precision(decoder, blueprint.precision, blueprint.stored_level):
        for note in part.notes:
            logger.info("precision: %s is held in %s: %s", part.name, ", ".join(part.held), note)


def refuse_unknown_levels(precision: WeightPrecision, kernels: Kernels) -> None:
    """Nobody who asks for fewer bytes wants to get all of them. Raises ConfigError."""
    missing = (precision.levels.levels & ROUNDED) - kernels.rounded_levels
    if missing:
        raise ConfigError(
            f"quantization asks for {', '.join(sorted(missing))}, which these kernels cannot hold "
            f"weights in; they can in {', '.join(sorted(kernels.rounded_levels))}."
        )


def _ffn_width(config: DecoderConfig, layer: LayerConfig) -> int:
    """Values of one token between the matrices of a layer's feed-forward part: gate, up and their
    product; with experts, these of each that is chosen, and what each of them gives."""
    if layer.moe is None:
        return 3 * config.ffn_size
    moe = layer.moe
    of_experts = moe.experts_per_token * (3 * moe.ffn_size + config.hidden_size)
    return of_experts + 3 * moe.shared_ffn_size
