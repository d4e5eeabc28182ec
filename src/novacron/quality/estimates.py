"""What the scores of many documents say of a variant, and how sure it is. Pure; numpy only.

Intervals are percentile bootstraps over documents (Efron 1979): whole documents are drawn with
replacement, since the tokens of one depend on each other. Reference and variant are drawn together,
so a difference between them is paired. Draws are the same in every call.

Shapes: D documents, B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from novacron.quality.document import DocumentScores

_DRAWS = 2000
_DRAWS_AT_ONCE = 50  # in float64: of many documents, all would take gigabytes
_SEED = 0
_Z = 1.959964

Floats = NDArray[np.float64]
Counts = NDArray[np.uint16]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """A variant against a reference on one corpus. Means are over tokens.

    `quality` is exp(-(NLL - NLL of the reference)): 1 is no loss, above 1 the variant predicts the
    corpus better. `largest_logit_error` is that of a document, in the mean over documents; the
    largest of all, `logit_error_of_all`, has no interval, as the extreme of a sample has none.
    """

    num_documents: int
    num_tokens: int
    reference_nll: Estimate
    nll_difference: Estimate
    quality: Estimate
    top1_agreement: Estimate
    kl: Estimate
    largest_logit_error: Estimate
    logit_error_of_all: float


class TokenMeans:
    """Means over the tokens of documents that have so many each, one for each sum of documents; all
    are of the same draws."""

    def __init__(self, counts_D: Sequence[int] | Floats) -> None:
        self._counts_D = np.asarray(counts_D, np.float64)
        self._draws_BD = _draws(len(counts_D))

    def __call__(self, sums_D: Sequence[float] | Floats) -> Estimate:
        return _estimate(np.asarray(sums_D, np.float64), self._counts_D, self._draws_BD)


def estimate_quality(documents: Sequence[DocumentScores]) -> Quality:
    """Raises ValueError if no token was judged."""
    judged = [one for one in documents if one.kl]
    if not judged:
        raise ValueError("no token to estimate quality from")
    counts_D = _per_document(judged, lambda one: len(one.kl))
    sums_D = {
        "reference_nll": _per_document(judged, lambda one: sum(one.reference_nll)),
        "variant_nll": _per_document(judged, lambda one: sum(one.variant_nll)),
        "kl": _per_document(judged, lambda one: sum(one.kl)),
        "agrees": _per_document(judged, lambda one: sum(one.agrees)),
    }
    largest_D = _per_document(judged, lambda one: max(one.logit_error))
    token_mean = TokenMeans(counts_D)
    difference = token_mean(sums_D["variant_nll"] - sums_D["reference_nll"])
    return Quality(
        num_documents=len(judged),
        num_tokens=int(counts_D.sum()),
        reference_nll=token_mean(sums_D["reference_nll"]),
        nll_difference=difference,
        quality=_quality_of(difference),
        top1_agreement=_agreement(token_mean(sums_D["agrees"]), len(judged)),
        kl=token_mean(sums_D["kl"]),
        largest_logit_error=TokenMeans(np.ones_like(largest_D))(largest_D),
        logit_error_of_all=float(largest_D.max()),
    )


def quality_by_context(
    documents: Sequence[DocumentScores], bounds: Sequence[int]
) -> Mapping[int, Quality]:
    """The same for judged tokens by how many tokens stand before them: up to the first bound, up to
    the second, ... Bounds ascend; those that no token falls under are left out."""
    found = {}
    for least, most in zip((0, *bounds), bounds, strict=False):
        parts = [_part(one, least + 1, most + 1) for one in documents]
        if any(part.kl for part in parts):
            found[most] = estimate_quality(parts)
    return found


def _part(one: DocumentScores, first: int, last: int) -> DocumentScores:
    """The scores of the tokens at positions [first, last)."""
    chosen = slice(*(max(0, place - one.first_scored) for place in (first, last)))
    return DocumentScores(
        max(first, one.first_scored),
        one.reference_nll[chosen],
        one.variant_nll[chosen],
        one.kl[chosen],
        one.agrees[chosen],
        one.logit_error[chosen],
    )


def _per_document(
    documents: Sequence[DocumentScores], value: Callable[[DocumentScores], float]
) -> Floats:
    return np.array([value(one) for one in documents], np.float64)


def _draws(num_documents: int) -> Counts:
    """How often each document is drawn in each draw, [B, D]."""
    rng = np.random.default_rng(_SEED)
    even = np.full(num_documents, 1 / num_documents)
    parts = (
        rng.multinomial(num_documents, even, size=_DRAWS_AT_ONCE).astype(np.uint16)
        for _ in range(_DRAWS // _DRAWS_AT_ONCE)
    )
    return np.concatenate(list(parts))


def _estimate(sums_D: Floats, counts_D: Floats, draws_BD: Counts) -> Estimate:
    """Of the ratio of two sums over documents."""
    both_D2 = np.stack((sums_D, counts_D), -1)
    drawn = [
        part.astype(np.float64) @ both_D2 for part in np.split(draws_BD, _DRAWS // _DRAWS_AT_ONCE)
    ]
    sums_B, counts_B = np.concatenate(drawn).T
    low, high = np.percentile(sums_B / counts_B, (2.5, 97.5))
    return Estimate(value=float(sums_D.sum() / counts_D.sum()), low=float(low), high=float(high))


def _agreement(found: Estimate, num_documents: int) -> Estimate:
    """Where nothing disagrees, draws do not either, and say nothing. The low end is then that of
    Wilson's interval (1927) with whole documents as trials, which tokens can only exceed."""
    if found.value < 1:
        return found
    return Estimate(value=1.0, low=num_documents / (num_documents + _Z**2), high=1.0)


def _quality_of(difference: Estimate) -> Estimate:
    value, most, least = np.exp([-difference.value, -difference.low, -difference.high])
    return Estimate(value=float(value), low=float(least), high=float(most))
