"""Log-probabilities of the model itself: of its raw logits, before masks, penalties, temperature.

Called by the sampler for new tokens and by the model runner for prompts. Raw logits are what
OpenAI and vLLM (logprobs_mode "raw_logprobs") report. Results are exact functions of one row: sums
are of integers, and among equal logits the lower token id comes first.

Shape letters: T positions, G rows of a group, V vocabulary, K alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from novacron.errors import RequestFailed
from novacron.records.step import PositionLogprobs
from novacron.runner.probability import integer_weights, log_total, rows_per_group
from novacron.runner.selection import largest_values


def prompt_logprobs(
    logits_TV: Tensor, next_token_ids: Sequence[int], num_top: int
) -> list[PositionLogprobs]:
    """For each position the log-probability of the token that follows it, and the likeliest ones.

    `num_top` may be 0. Raises RequestFailed if logits are not finite.
    """
    assert logits_TV.shape[0] == len(next_token_ids)
    device = logits_TV.device
    size = rows_per_group(logits_TV.shape[1], device)
    results: list[PositionLogprobs] = []
    for start in range(0, len(next_token_ids), size):
        group = slice(start, start + size)
        token_G = torch.tensor(next_token_ids[group], dtype=torch.int64, device=device)
        results += unpack_logprobs(packed_logprobs(logits_TV[group], token_G, num_top))
    return results


def packed_logprobs(logits_GV: Tensor, token_G: Tensor, num_top: int) -> Tensor:
    """One float64 row each for `unpack_logprobs`, so that a single copy brings it to the host:
    token, its rank, peak, sum of weights, token's logit - peak, top token ids, their logits - peak.
    """
    peak_G = logits_GV.amax(dim=-1)
    total_G = integer_weights(logits_GV, peak_G).sum(dim=-1)
    chosen_G = logits_GV.gather(1, token_G[:, None]).squeeze(1)
    rank_G = (logits_GV > chosen_G[:, None]).sum(dim=-1) + 1
    top_GK = _top_token_ids(logits_GV, min(num_top, logits_GV.shape[1]))
    peak_G = peak_G.double()
    top_gap_GK = logits_GV.gather(1, top_GK).double() - peak_G[:, None]
    # float64 holds ids and ranks exactly, and totals well enough for their logarithm.
    gap_G = chosen_G.double() - peak_G
    head = [token_G.double(), rank_G.double(), peak_G, total_G.double(), gap_G]
    return torch.cat([torch.stack(head, dim=1), top_GK.double(), top_gap_GK], dim=1)


def unpack_logprobs(packed: Tensor) -> list[PositionLogprobs]:
    """What `packed_logprobs` packed; copies from the device. Raises RequestFailed as above."""
    return [_position_logprobs(values) for values in packed.tolist()]


def first_alternatives(logprobs: PositionLogprobs, num_top: int) -> PositionLogprobs:
    """The same with at most `num_top` alternatives after the chosen token."""
    return PositionLogprobs(
        logprobs.token_ids[: 1 + num_top], logprobs.logprobs[: 1 + num_top], logprobs.rank
    )


def _position_logprobs(values: list[float]) -> PositionLogprobs:
    token, rank, peak, total, gap, *top = values
    num_top = len(top) // 2
    if not math.isfinite(peak):
        raise RequestFailed("The model computed logits that are not finite for the prompt.")
    log_sum = log_total(int(total))
    return PositionLogprobs(
        token_ids=(int(token), *map(int, top[:num_top])),
        logprobs=(gap - log_sum, *(top_gap - log_sum for top_gap in top[num_top:])),
        rank=int(rank),
    )


def _top_token_ids(logits_GV: Tensor, num_top: int) -> Tensor:
    """Ids of the largest logits, largest first.

    Selects by one integer made of the logit and the id, all different. A float32 orders like its
    bits, once negative numbers have all but the sign flipped.
    """
    # Adding 0.0 makes -0.0 equal to 0.0.
    bits_GV = (logits_GV.float() + 0.0).view(torch.int32)
    order_GV = bits_GV ^ ((bits_GV >> 31) & 0x7FFFFFFF)
    descending_id_V = torch.arange(logits_GV.shape[1] - 1, -1, -1, device=logits_GV.device)
    key_GV = (order_GV.long() << 32) | descending_id_V
    top_key_GK = largest_values(key_GV, num_top)
    return logits_GV.shape[1] - 1 - (top_key_GK & 0xFFFFFFFF)
