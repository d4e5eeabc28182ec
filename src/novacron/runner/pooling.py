"""Embeddings of prompts from the decoder's hidden states, gathered over the chunks of a prompt.

Shapes: T tokens of a chunk, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from novacron.records.request import Pooling
from novacron.records.step import StepResult


def add_to_sum(sum_D: Tensor | None, hidden_TD: Tensor, pooling: Pooling) -> Tensor:
    """The sum of hidden states so far, in float32. "last" keeps only the newest."""
    chunk_D = hidden_TD.sum(0, dtype=torch.float32)
    return chunk_D if sum_D is None or pooling == "last" else sum_D + chunk_D


def finish_embedding(request_id: str, sum_D: Tensor) -> StepResult:
    """The embedding, of length one. The mean has the direction of the sum: no count is needed."""
    unit = torch.nn.functional.normalize(sum_D, dim=0)
    values = tuple(unit.tolist())
    if not all(map(math.isfinite, values)):
        return StepResult(request_id, error="The model computed hidden states that are not finite.")
    return StepResult(request_id, embedding=values)
