"""Measures what each part of a model loses at each level, one run of documents after the other.

Runs are short enough for what is kept of them (part_losses) to fit into a little memory, and what
they lost is kept as they end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from novacron.config.engine import EngineConfig
from novacron.config.weight_layers import parse_precision
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.part_losses import PartStudy, at_level
from novacron.executor.placement import choose_num_threads
from novacron.executor.precision_units import Unit, matrices_of_unit
from novacron.models.decoder import Decoder
from novacron.models.model_version import model_version
from novacron.quality.document import Document
from novacron.quality.document_losses import DocumentLosses, LossJournal
from novacron.quality.sensitivity import PartSensitivity, Sensitivity, level_losses

Progress = Callable[[float], None]

_VALUES_OF_A_RUN = 2**21  # of hidden states, one for each token: 8 MiB


def measure_sensitivity(
    config: EngineConfig,
    model_path: Path,
    documents: Sequence[Document],
    levels: Sequence[str],
    *,
    corpus: str,
    progress: Progress,
    journal: LossJournal | None = None,
) -> Sensitivity:
    """`levels` are those to be tried, with groups or without, as overrides have them; bytes are
    those of the precision that `config` serves the model in. `progress` gets the fraction done.
    Documents that `journal` has are not measured again. Raises ConfigError and ModelLoadError."""
    served = draw_blueprint(config.model, model_path, choose_num_threads(config.model))
    _check(levels, served)
    journal = journal or LossJournal()
    study = PartStudy(config, model_path, max(len(document.token_ids) for document in documents))
    most_tokens = max(1, _VALUES_OF_A_RUN // study.reference.decoder.config.hidden_size)
    total = sum(len(document.token_ids) for document in documents)
    done = sum(len(run.num_tokens_D) for run in journal.runs)
    for run in _runs(documents[done:], most_tokens):
        before = sum(len(document.token_ids) for document in documents[:done])
        share_of_run = sum(len(document.token_ids) for document in run) / total

        def within(fraction: float, before: int = before, part: float = share_of_run) -> None:
            progress(before / total + fraction * part)

        journal.add(study.losses(run, levels, within))
        done += len(run)
    sizes = {level: _sizes(config, model_path, served, study.units, level) for level in levels}
    by_part = {
        unit.name: {level: sizes[level][unit.name] for level in levels} for unit in study.units
    }
    losses = level_losses(DocumentLosses.joined(journal.runs), by_part)
    plain = served.build(torch.device("meta"))
    plain_bytes = {unit.name: _bytes(served, plain, unit) for unit in study.units}
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
                plain_bytes=plain_bytes[unit.name],
                losses=losses[unit.name],
            )
            for unit in study.units
        ),
    )


def _runs(documents: Sequence[Document], most_tokens: int) -> Iterator[Sequence[Document]]:
    """One after the other, of no more tokens, but at least a document."""
    start = tokens = 0
    for place, document in enumerate(documents):
        if place > start and tokens + len(document.token_ids) > most_tokens:
            yield documents[start:place]
            start, tokens = place, 0
        tokens += len(document.token_ids)
    if start < len(documents):
        yield documents[start:]


def _check(levels: Sequence[str], served: Blueprint) -> None:
    known = served.kernels.rounded_levels
    asked = {level: parse_precision(level) for level in levels}
    if unknown := [level for level, found in asked.items() if not found or found[0] not in known]:
        raise ConfigError(
            f"Weights cannot be held in {', '.join(unknown)} here: choose among "
            f"{', '.join(sorted(known))}, whole numbers also with groups: int4/64."
        )


def _sizes(
    config: EngineConfig, model_path: Path, served: Blueprint, units: Sequence[Unit], level: str
) -> dict[str, int]:
    """Of each unit at a level, where it is served."""
    blueprint = draw_blueprint(at_level(config, level).model, model_path, 1)
    rounded = blueprint.build(torch.device("meta"))
    return {unit.name: _bytes(served, rounded, unit) for unit in units}


def _bytes(served: Blueprint, decoder: Decoder, unit: Unit) -> int:
    """What the unit takes where it is served, at the level that `decoder` has it at."""
    return sum(
        served.kernels.weight_bytes(matrix.shape, served.dtype, matrix.quantization)
        for matrix in matrices_of_unit(decoder, unit)
    )
