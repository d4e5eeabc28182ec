"""What documents have become before one of a model's layers: what follows it can be computed again
and again, and what comes before it once.

Shapes: T tokens of a pass, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from novacron.executor.teacher_forcing import TeacherForcing, Through
from novacron.quality.document import Document
from novacron.runner.input_batch import StepInput


class LayerBoundary:
    """Stands before a layer of `teacher`, the first one to begin with, and goes forward only. Holds
    a hidden state of each token of the documents."""

    def __init__(self, teacher: TeacherForcing, documents: Sequence[Document]) -> None:
        self._teacher = teacher
        self._documents = documents
        self._layer = 0
        self._states_TD: list[Tensor] = []  # of each pass

        def embed(step: int, inputs: StepInput) -> Tensor:
            self._states_TD.append(teacher.decoder.embed(inputs.token_ids_T))
            return self._states_TD[step]

        _go_through(teacher, documents, embed)

    def advance(self, layer: int) -> None:
        """Until before this layer, through all between as the teacher holds them."""
        assert layer >= self._layer
        for index in range(self._layer, layer):

            def one_layer(step: int, inputs: StepInput, index: int = index) -> Tensor:
                return self._compute(self._teacher, step, inputs, range(index, index + 1))

            _go_through(self._teacher, self._documents, one_layer)
        self._layer = layer

    def hidden(self, other: TeacherForcing) -> Iterator[Tensor]:
        """As `other.hidden` of the documents, if it holds before the boundary what the teacher
        does."""
        layers = range(self._layer, len(other.decoder.layers))

        def rest(step: int, inputs: StepInput) -> Tensor:
            return self._compute(other, step, inputs, layers)

        return other.hidden(self._documents, through=rest)

    def _compute(
        self, teacher: TeacherForcing, step: int, inputs: StepInput, layers: range
    ) -> Tensor:
        """Changes the pass's state only where the teacher itself goes forward."""
        state_TD = self._states_TD[step]
        return teacher.decoder.through_layers(
            state_TD if teacher is self._teacher else state_TD.clone(),
            inputs.positions_T,
            inputs.attention,
            teacher.kv_tensors.layers,
            layers=layers,
        )


def _go_through(teacher: TeacherForcing, documents: Sequence[Document], through: Through) -> None:
    for _ in teacher.hidden(documents, through=through):
        pass
