"""What documents lose by each part of a model at each level, all other parts as they are.

Three decoders: the reference, in float32; the model with every part at one level; and one that
computes with what the other two hold, all of it the reference's but the part that is measured. So
each level is loaded once for a run of documents, and nothing is held twice. What comes before the
layer of the part is computed once for all parts of that layer (layer_boundary).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from novacron.config.engine import EngineConfig
from novacron.executor.layer_boundary import LayerBoundary
from novacron.executor.precision_units import Unit, share, units_of
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.quality.document import Document
from novacron.quality.document_losses import DocumentLoss, DocumentLosses
from novacron.quality.scoring import score_document

Progress = Callable[[float], None]

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")


@dataclass
class PartStudy:
    """The reference, and the decoder whose parts are exchanged. `longest`: tokens of a document."""

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
        """Of every unit at every level. `progress` gets the fraction done."""
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
        return load_teacher(at_level(self.config, level), self.model_path, longest=self.longest)[1]


def at_level(config: EngineConfig, level: str | None) -> EngineConfig:
    """All parts at one level, computed in float32: what else is rounded would hide small losses."""
    model = replace(
        config.model,
        dtype="float32",
        quantization="none",
        quantization_layers=() if level is None else (f"*={level}",),
    )
    return replace(config, model=model)
