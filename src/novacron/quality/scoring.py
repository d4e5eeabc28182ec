"""Two variants' logits at the same places, compared token by token.

Shapes: S judged tokens, C of them at once, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.quality.document import Document, DocumentScores

_VALUES_AT_ONCE = 2**21  # of logits in float64: bounds memory, whatever the vocabulary

LogitsAt = Callable[[slice], Tensor]


class _Compared(NamedTuple):
    """[C] each."""

    reference_nll: Tensor
    variant_nll: Tensor
    kl: Tensor
    agrees: Tensor
    logit_error: Tensor


def compare_logits(reference_CV: Tensor, variant_CV: Tensor, token_ids_C: Tensor) -> _Compared:
    """The measures of DocumentScores, in float64: differences between good variants are below what
    float32 leaves of a logarithm. Among equal logits the lower token id is the likeliest."""
    reference, variant = reference_CV.double(), variant_CV.double()
    log_p, log_q = F.log_softmax(reference, -1), F.log_softmax(variant, -1)
    tokens = token_ids_C.unsqueeze(-1)
    # A divergence is never negative; the sum of rounded terms may be, by a few units of 1e-16.
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_(min=0.0)
    return _Compared(
        reference_nll=-log_p.gather(-1, tokens).squeeze(-1),
        variant_nll=-log_q.gather(-1, tokens).squeeze(-1),
        kl=kl,
        agrees=reference.argmax(-1) == variant.argmax(-1),
        logit_error=(reference - variant).abs().amax(-1),
    )


def score_document(
    document: Document, vocab_size: int, reference: LogitsAt, variant: LogitsAt
) -> DocumentScores:
    """`reference` and `variant` give the logits before a run of the judged tokens, [C, V]: they are
    asked for a few at a time, so that a long document of a large vocabulary fits."""
    tokens_S = torch.tensor(document.token_ids[document.first_scored :])
    at_once = max(1, _VALUES_AT_ONCE // vocab_size)
    parts = []
    for start in range(0, len(tokens_S), at_once):
        part = slice(start, min(start + at_once, len(tokens_S)))
        ours, theirs = reference(part), variant(part)
        parts.append(compare_logits(ours, theirs, tokens_S[part].to(ours.device)))
    return _joined(document.first_scored, parts)


def _joined(first_scored: int, parts: Sequence[_Compared]) -> DocumentScores:
    values = (tuple(torch.cat(part).tolist()) for part in zip(*parts, strict=True))
    return DocumentScores(first_scored, *values)
