"""What compressing the blocks of a KV tier has come to. Apart from other records, so that the API
process needs no numpy for it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class CodecTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier that compresses has done since its start. `error` sums the relative errors of the
    blocks that were encoded, each in the level it was stored in."""

    level: str
    num_encoded: int = 0
    num_finer: int = 0  # of these: would have lost too much, and were stored in a finer level
    num_decoded: int = 0
    raw_bytes: int = 0  # of blocks that were encoded
    encoded_bytes: int = 0
    error: float = 0.0
    worst_error: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times smaller blocks have become; 1 before the first."""
        return self.raw_bytes / self.encoded_bytes if self.encoded_bytes else 1.0

    @property
    def mean_error(self) -> float:
        return self.error / self.num_encoded if self.num_encoded else 0.0


def sum_of_codecs(codecs: Sequence[CodecTotals]) -> CodecTotals | None:
    """Of several engines; None of none."""
    if not codecs:
        return None
    sums = {
        name: (max if name == "worst_error" else sum)(getattr(one, name) for one in codecs)
        for name in CodecTotals.__struct_fields__
        if name != "level"
    }
    return CodecTotals(level=codecs[0].level, **sums)
