"""What the sampler is told about one row of logits, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from novacron.kernels.table import Draw
from novacron.records.request import SamplingParams
from novacron.records.step import PositionLogprobs

_UINT64_MASK = (1 << 64) - 1

TokenIds = Sequence[int] | NDArray[np.integer]


class SamplingRow(msgspec.Struct, frozen=True):
    """One request that gets a token in this step. `sampling.seed` is set.

    `token_mask` is a bit set as in `SchedulerOutput.token_masks`. `suppressed_token_ids` are the
    tokens that would end the request; they cannot be chosen while fewer than `min_tokens` are out.
    The model runner fills them in, because it knows the end-of-sequence tokens of the model and
    SamplingParams names only the request's own stop tokens. Token ids are read only where a
    penalty asks for them; NumPy arrays spare that row a conversion.
    """

    sampling: SamplingParams
    prompt_token_ids: TokenIds
    output_token_ids: TokenIds
    token_mask: bytes | None = None
    suppressed_token_ids: tuple[int, ...] = ()

    @property
    def draw(self) -> Draw:
        sampling = self.sampling
        assert sampling.seed is not None, "the seed is drawn when a request is accepted"
        return Draw(
            sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            sampling.top_k,
            sampling.seed & _UINT64_MASK,
            self.position,
        )

    @property
    def position(self) -> int:
        """Of the token to be chosen, which is the counter of its random number."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def must_go_on(self) -> bool:
        """Whether the request is still too short to end."""
        return len(self.output_token_ids) < self.sampling.min_tokens


def ending_token_ids(sampling: SamplingParams, eos_token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """What a row that has to be `min_tokens` long suppresses until it is."""
    if sampling.min_tokens == 0:
        return ()
    return sampling.stop_token_ids + (() if sampling.ignore_eos else eos_token_ids)


class SampledToken(msgspec.Struct, frozen=True):
    """The token chosen for a row. `error` set: none could be, and `token_id` means nothing."""

    token_id: int
    logprobs: PositionLogprobs | None = None
    error: str | None = None
