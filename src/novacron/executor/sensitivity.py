"""Measures what each part of a model loses at each level.

Three decoders: the reference, in float32; the model with every part at one level; and one that
computes with what the other two hold, all of it the reference's but the part that is measured. So
each level is loaded once for a run of documents, and nothing is held twice. What comes before the
layer of the part is computed once for all parts of that layer (layer_boundary); runs of documents
are short enough for that to fit into a little memory, and what they lost is kept as they end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from novacron.config.engine import EngineConfig
from novacron.config.weight_layers import parse_precision
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.layer_boundary import LayerBoundary
from novacron.executor.placement import choose_num_threads
from novacron.executor.precision_units import Unit, matrices_of_unit, share, units_of
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.models.decoder import Decoder
from novacron.models.model_version import model_version
from novacron.quality.document import Document
from novacron.quality.document_losses import DocumentLoss, DocumentLosses, LossJournal
from novacron.quality.scoring import score_document
from novacron.quality.sensitivity import PartSensitivity, Sensitivity, level_losses

Progress = Callable[[float], None]

_VALUES_OF_A_RUN = 2**21  # of hidden states, one for each token: 8 MiB
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")


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
    study = _Study(config, model_path, max(len(document.token_ids) for document in documents))
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


@dataclass
class _Study:
    """The reference, and the decoder whose parts are exchanged."""

    config: EngineConfig
    model_path: Path
    longest: int

    def __post_init__(self) -> None:
        self.reference, self._mixed = self._load(None), self._load(None)
        self.units = tuple(sorted(units_of(self.reference.decoder), key=self._layer_of))
        for unit in self.units:
            share(self._mixed.decoder, self.reference.decoder, unit)

    def losses(
        self, documents: Sequence[Document], levels: Sequence[str], progress: Progress
    ) -> DocumentLosses:
        hidden = list(self.reference.hidden(documents))
        losses: dict[str, dict[str, DocumentLoss]] = {unit.name: {} for unit in self.units}
        for number, level in enumerate(levels):
            rounded = self._load(level).decoder
            boundary = LayerBoundary(self.reference, documents)
            for place, unit in enumerate(self.units, start=1):
                layer = self._layer_of(unit)
                boundary.advance(max(0, layer))
                share(self._mixed.decoder, rounded, unit)
                found = self._mixed.hidden(documents) if layer < 0 else boundary.hidden(self._mixed)
                losses[unit.name][level] = self._compare(documents, hidden, found)
                share(self._mixed.decoder, self.reference.decoder, unit)
                progress((number + place / len(self.units)) / len(levels))
        return DocumentLosses(tuple(document.num_scored for document in documents), losses)

    def _compare(
        self, documents: Sequence[Document], hidden: Sequence[Tensor], found: Iterator[Tensor]
    ) -> DocumentLoss:
        reference, mixed = self.reference, self._mixed
        vocab_size = reference.decoder.config.vocab_size
        kl: list[float] = []
        difference: list[float] = []
        for document, first_SD, second_SD in zip(documents, hidden, found, strict=True):
            scores = score_document(
                document, vocab_size, reference.logits_of(first_SD), mixed.logits_of(second_SD)
            )
            kl.append(sum(scores.kl))
            difference.append(sum(scores.variant_nll) - sum(scores.reference_nll))
        return DocumentLoss(tuple(kl), tuple(difference))

    def _layer_of(self, unit: Unit) -> int:
        """Before which nothing depends on the unit: -1, the tokens; the number of layers, the
        scores."""
        found = _LAYER.match(unit.patterns[0])
        if found is not None:
            return int(found[1])
        is_head = unit.patterns[0].startswith("lm_head")
        return len(self.reference.decoder.layers) if is_head else -1

    def _load(self, level: str | None) -> TeacherForcing:
        return load_teacher(_at(self.config, level), self.model_path, longest=self.longest)[1]


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


def _at(config: EngineConfig, level: str | None) -> EngineConfig:
    """All parts at one level, computed in float32: what else is rounded would hide small losses."""
    model = replace(
        config.model,
        dtype="float32",
        quantization="none",
        quantization_layers=() if level is None else (f"*={level}",),
    )
    return replace(config, model=model)


def _sizes(
    config: EngineConfig, model_path: Path, served: Blueprint, units: Sequence[Unit], level: str
) -> dict[str, int]:
    """Of each unit at a level, where it is served."""
    blueprint = draw_blueprint(_at(config, level).model, model_path, 1)
    rounded = blueprint.build(torch.device("meta"))
    return {unit.name: _bytes(served, rounded, unit) for unit in units}


def _bytes(served: Blueprint, decoder: Decoder, unit: Unit) -> int:
    """What the unit takes where it is served, at the level that `decoder` has it at."""
    return sum(
        served.kernels.weight_bytes(matrix.shape, served.dtype, matrix.quantization)
        for matrix in matrices_of_unit(decoder, unit)
    )
