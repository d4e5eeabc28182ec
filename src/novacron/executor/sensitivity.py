"""Measures what each part of a model loses at each level.

Three decoders: the reference, in float32; the model with every part at one level; and one that
computes with what the other two hold, all of it the reference's but the part that is measured. So
each level is loaded once, and nothing is held twice. What the reference computes before the judged
tokens is kept: a hidden state each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from novacron.config.engine import EngineConfig
from novacron.config.weight_layers import parse_precision
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.placement import choose_num_threads
from novacron.executor.precision_units import Unit, matrices_of_unit, share, units_of
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.models.decoder import Decoder
from novacron.models.model_version import model_version
from novacron.quality.document import Document, DocumentScores
from novacron.quality.estimates import estimate_quality
from novacron.quality.scoring import score_document
from novacron.quality.sensitivity import LevelLoss, PartSensitivity, Sensitivity

Progress = Callable[[float], None]


def measure_sensitivity(
    config: EngineConfig,
    model_path: Path,
    documents: Sequence[Document],
    levels: Sequence[str],
    *,
    corpus: str,
    progress: Progress,
) -> Sensitivity:
    """`levels` are those to be tried, with groups or without, as overrides have them; bytes are
    those of the precision that `config` serves the model in. `progress` gets the fraction done.
    Raises ConfigError and ModelLoadError."""
    served = draw_blueprint(config.model, model_path, choose_num_threads(config.model))
    _check(levels, served)
    longest = max(len(document.token_ids) for document in documents)

    def load(level: str | None) -> TeacherForcing:
        return load_teacher(_at(config, level), model_path, longest=longest)[1]

    reference, mixed = load(None), load(None)
    units = units_of(reference.decoder)
    for unit in units:
        share(mixed.decoder, reference.decoder, unit)
    hidden = list(reference.hidden(documents))
    total = len(levels) * len(units)
    losses: dict[Unit, dict[str, LevelLoss]] = {unit: {} for unit in units}
    for number, level in enumerate(levels):
        rounded = load(level).decoder
        for done, unit in enumerate(units, start=1 + number * len(units)):
            share(mixed.decoder, rounded, unit)
            scores = list(_compare(documents, reference, hidden, mixed))
            share(mixed.decoder, reference.decoder, unit)
            losses[unit][level] = _loss(scores, _bytes(served, rounded, unit))
            progress(done / total)
    plain = served.build(torch.device("meta"))
    plain_bytes = {unit: _bytes(served, plain, unit) for unit in units}
    return Sensitivity(
        model_version=model_version(served.checkpoint),
        dtype=served.dtype_name,
        group_size=config.model.quantization_group_size,
        corpus=corpus,
        num_documents=len(documents),
        num_tokens=sum(document.num_scored for document in documents),
        other_bytes=plain.weight_bytes - sum(plain_bytes.values()),
        parts=tuple(
            PartSensitivity(
                name=unit.name,
                patterns=unit.patterns,
                plain_bytes=plain_bytes[unit],
                losses=losses[unit],
            )
            for unit in units
        ),
    )


def _check(levels: Sequence[str], served: Blueprint) -> None:
    known = served.kernels.rounded_levels
    asked = {level: parse_precision(level) for level in levels}
    if unknown := [level for level, found in asked.items() if not found or found[0] not in known]:
        raise ConfigError(
            f"Weights cannot be held in {', '.join(unknown)} here: choose among "
            f"{', '.join(sorted(known))}, whole numbers also with groups: int4/64."
        )


def _at(config: EngineConfig, level: str | None) -> EngineConfig:
    """All parts at one level, computed in float32: what else is rounded would hide small losses."""
    model = replace(
        config.model,
        dtype="float32",
        quantization="none",
        quantization_layers=() if level is None else (f"*={level}",),
    )
    return replace(config, model=model)


def _compare(
    documents: Sequence[Document],
    reference: TeacherForcing,
    hidden: Sequence[Tensor],
    mixed: TeacherForcing,
) -> Iterator[DocumentScores]:
    vocab_size = reference.decoder.config.vocab_size
    for document, first_SD, second_SD in zip(
        documents, hidden, mixed.hidden(documents), strict=True
    ):
        yield score_document(
            document, vocab_size, reference.logits_of(first_SD), mixed.logits_of(second_SD)
        )


def _bytes(served: Blueprint, decoder: Decoder, unit: Unit) -> int:
    """What the unit takes where it is served, at the level that `decoder` has it at."""
    return sum(
        served.kernels.weight_bytes(matrix.shape, served.dtype, matrix.quantization)
        for matrix in matrices_of_unit(decoder, unit)
    )


def _loss(scores: Sequence[DocumentScores], num_bytes: int) -> LevelLoss:
    found = estimate_quality(scores)
    return LevelLoss(num_bytes=num_bytes, kl=found.kl, nll_difference=found.nll_difference)
