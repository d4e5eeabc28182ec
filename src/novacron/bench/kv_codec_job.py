"""What crosses between the bench and kv_codec_study: a model and documents; what each level costs.

Each as a line of JSON: a CodecJob in; out LevelMeasured for each level in order, then Kept; or
Refused instead of any of them.
"""

from __future__ import annotations

import msgspec

from novacron.bench.forced_job import Refused, Variant
from novacron.config.kv_compression import KVLevel
from novacron.quality.document import Document, DocumentScores


class CodecJob(msgspec.Struct, frozen=True):
    variant: Variant
    documents: tuple[Document, ...]
    levels: tuple[KVLevel, ...]
    repeats: int


class LevelMeasured(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Errors are of the blocks before judged tokens, one for each; times of all of them together,
    one for each repetition."""

    level: KVLevel
    block_bytes: int
    encoded_bytes: int
    num_tokens: int  # of the blocks that are timed
    key_errors: tuple[float, ...]
    value_errors: tuple[float, ...]
    encode_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    copy_s: tuple[float, ...]
    scores: tuple[DocumentScores, ...]


class Kept(msgspec.Struct, frozen=True, tag=True):
    """Where the measurement lies that kv_tier_profile asks for."""

    path: str


CodecNews = LevelMeasured | Kept | Refused
