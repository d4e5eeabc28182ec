"""A text to be scored, and what its scoring gave. No torch: both cross between processes."""

from __future__ import annotations

import msgspec


class Document(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of a text; those from `first_scored` (1 or more) on are judged, each after all that
    stand before it."""

    token_ids: tuple[int, ...]
    first_scored: int

    @property
    def num_scored(self) -> int:
        return len(self.token_ids) - self.first_scored


class DocumentScores(msgspec.Struct, frozen=True, array_like=True):
    """Two variants on the judged tokens of one document, token by token in their order.

    `nll` is the negative log-probability of the token that stands there, in nats; `kl` the
    Kullback-Leibler divergence of the variant's distribution from the reference's, in nats;
    `agrees` whether both find the same token the likeliest; `logit_error` the largest difference
    between the two logits of a token of the vocabulary.
    """

    first_scored: int
    reference_nll: tuple[float, ...]
    variant_nll: tuple[float, ...]
    kl: tuple[float, ...]
    agrees: tuple[bool, ...]
    logit_error: tuple[float, ...]
