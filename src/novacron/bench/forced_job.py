"""What crosses between the bench and forced_comparison: two variants and a corpus, and scores.

Each as a line of JSON: a ForcedJob in; out Loaded, then Scored, one for each document in order; or
Refused instead of any of them.
"""

from __future__ import annotations

import msgspec

from novacron.config.engine import EngineConfig
from novacron.quality.document import Document, DocumentScores


class Variant(msgspec.Struct, frozen=True):
    """A model as an engine of this configuration would serve it."""

    config: EngineConfig
    model_path: str


class ForcedJob(msgspec.Struct, frozen=True):
    reference: Variant
    variant: Variant
    documents: tuple[Document, ...]


class VariantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant is, once it is loaded."""

    dtype: str
    quantization: str
    kv_precision: str
    kernels: str
    weight_bytes: int
    kv_bytes_per_token: float


class Loaded(msgspec.Struct, frozen=True, tag=True):
    reference: VariantFacts
    variant: VariantFacts


class Scored(msgspec.Struct, frozen=True, tag=True):
    scores: DocumentScores


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A variant cannot be loaded, or the two cannot be compared."""

    reason: str


News = Loaded | Scored | Refused
