"""Chooses the next token of every row of logits.

Called by the model runner at the end of a step. A row's token is an exact function of its logits,
its parameters and its position: the same alone as in any batch.

Order, which is that of Hugging Face transformers (vLLM has min_p before top_k): masks, minimum
length, logit_bias, penalties (penalties.py); temperature; top_k; top_p of what top_k left; min_p;
then the token where the cumulative weight, in order of token ids, passes a uniform number that
comes from (seed, position) alone (random.py). Temperature 0 takes the largest logit, the lowest
id among equals. top_k and top_p keep all tokens that equal the last one kept: dropping some of them
would make the choice depend on the order in which a device sorts equals.

Shape letters: R rows, G rows of a group, V vocabulary, K largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from novacron.kernels.table import Choose, Draw
from novacron.runner.logprobs import first_alternatives, packed_logprobs, unpack_logprobs
from novacron.runner.penalties import edit_logits
from novacron.runner.probability import MAX_WEIGHT, integer_weights, rows_per_group
from novacron.runner.random import uniforms
from novacron.runner.sampling_row import SampledToken, SamplingRow
from novacron.runner.selection import largest_values

_NUCLEUS_GUESS = (
    256  # top_p seldom keeps more tokens; sorting a large vocabulary takes milliseconds
)


def sample(
    logits_RV: Tensor, rows: Sequence[SamplingRow], choose: Choose | None = None
) -> list[SampledToken]:
    """One token for each row, in order. Leaves the logits (float32) as they are.

    A row without a usable logit gets an error; its neighbours are not affected.
    """
    assert logits_RV.shape[0] == len(rows)
    if not rows:
        return []
    edited_RV = edit_logits(logits_RV, rows)
    tokens, peaks = (choose or choose_with_torch)(edited_RV, [row.draw for row in rows])
    raw_peaks = peaks if edited_RV is logits_RV else logits_RV.amax(dim=-1).tolist()
    results = [
        SampledToken(token_id=token, error=_error(raw_peak, peak))
        for token, raw_peak, peak in zip(tokens, raw_peaks, peaks, strict=True)
    ]
    wanted = [
        r
        for r, row in enumerate(rows)
        if row.sampling.logprobs is not None and results[r].error is None
    ]
    if wanted:
        _add_logprobs(results, wanted, logits_RV, rows)
    return results


def choose_with_torch(logits_RV: Tensor, draws: Sequence[Draw]) -> tuple[list[int], list[float]]:
    """The rules themselves, on any device. Implements Choose."""
    peak_R, token_R = logits_RV.max(dim=-1)
    drawing = [r for r, draw in enumerate(draws) if draw.temperature > 0.0]
    for group in _groups(drawing, logits_RV):
        index_G = torch.tensor(group, device=logits_RV.device)
        token_R[index_G] = _draw(logits_RV[index_G], peak_R[index_G], [draws[r] for r in group])
    tokens, peaks = torch.stack((token_R.double(), peak_R.double())).tolist()
    return [int(token) for token in tokens], peaks


def _groups(row_numbers: list[int], logits_RV: Tensor) -> list[list[int]]:
    size = rows_per_group(logits_RV.shape[1], logits_RV.device)
    return [row_numbers[i : i + size] for i in range(0, len(row_numbers), size)]


def _draw(x_GV: Tensor, peak_G: Tensor, draws: list[Draw]) -> Tensor:
    """Tokens drawn at random. Overwrites `x_GV`."""
    device = x_GV.device
    temperature_G = torch.tensor([draw.temperature for draw in draws], dtype=torch.float64)
    random_G = uniforms([draw.seed for draw in draws], [draw.position for draw in draws])
    uniform_G = torch.from_numpy(random_G).to(device)
    _keep_top_k(x_GV, draws)
    weight_GV = integer_weights(x_GV, peak_G, temperature_G.to(device))
    _keep_top_p(weight_GV, draws)
    _keep_min_p(weight_GV, draws)
    cumulative_GV = weight_GV.cumsum(dim=-1)
    total_G1 = cumulative_GV[:, -1:]
    target_G1 = (total_G1.double() * uniform_G[:, None]).long()
    target_G1 = torch.minimum(target_G1, total_G1 - 1)  # float64 may round the product up
    token_G = torch.searchsorted(cumulative_GV, target_G1, right=True).squeeze(1)
    return token_G.clamp_(max=x_GV.shape[1] - 1)  # rows that are not finite may be anywhere


def _keep_top_k(x_GV: Tensor, draws: list[Draw]) -> None:
    vocab_size = x_GV.shape[1]
    limits = {g: draw.top_k for g, draw in enumerate(draws) if 0 < draw.top_k < vocab_size}
    if not limits:
        return
    index_G = torch.tensor(list(limits), device=x_GV.device)
    last_G1 = torch.tensor([[k - 1] for k in limits.values()], device=x_GV.device)
    largest_GK = largest_values(x_GV[index_G], max(limits.values()))
    _drop_below(x_GV, index_G, largest_GK.gather(1, last_G1), -math.inf)


def _keep_top_p(weight_GV: Tensor, draws: list[Draw]) -> None:
    fractions = {g: draw.top_p for g, draw in enumerate(draws) if draw.top_p < 1.0}
    if not fractions:
        return
    index_G = torch.tensor(list(fractions), device=weight_GV.device)
    fraction_G1 = torch.tensor([[p] for p in fractions.values()], dtype=torch.float64)
    chosen_GV = weight_GV[index_G]
    wanted_G1 = chosen_GV.sum(dim=-1, keepdim=True) * fraction_G1.to(weight_GV.device)
    largest_GK = largest_values(chosen_GV, min(_NUCLEUS_GUESS, weight_GV.shape[1]))
    if bool((largest_GK.sum(dim=-1, keepdim=True) < wanted_G1).any()):
        largest_GK = largest_values(chosen_GV, weight_GV.shape[1])
    _drop_below(weight_GV, index_G, _last_of_nucleus(largest_GK, wanted_G1), 0)


def _last_of_nucleus(largest_GK: Tensor, wanted_G1: Tensor) -> Tensor:
    """The smallest weight in the shortest run of largest weights that adds up to `wanted_G1`."""
    before_GK = largest_GK.cumsum(dim=-1) - largest_GK
    length_G1 = (before_GK < wanted_G1).sum(dim=-1, keepdim=True)
    return largest_GK.gather(1, (length_G1 - 1).clamp_(min=0))


def _keep_min_p(weight_GV: Tensor, draws: list[Draw]) -> None:
    fractions = {g: draw.min_p for g, draw in enumerate(draws) if draw.min_p > 0.0}
    if not fractions:
        return
    index_G = torch.tensor(list(fractions), device=weight_GV.device)
    # The likeliest token always weighs MAX_WEIGHT.
    floors = [[math.ceil(p * MAX_WEIGHT)] for p in fractions.values()]
    _drop_below(weight_GV, index_G, torch.tensor(floors, device=weight_GV.device), 0)


def _drop_below(values_GV: Tensor, index_G: Tensor, floor_G1: Tensor, empty: float) -> None:
    """Set what is smaller than its row's floor to `empty`, in the rows named by `index_G`."""
    chosen_GV = values_GV[index_G]
    values_GV[index_G] = chosen_GV.masked_fill_(chosen_GV < floor_G1, empty)


def _add_logprobs(
    results: list[SampledToken], wanted: list[int], logits_RV: Tensor, rows: Sequence[SamplingRow]
) -> None:
    for group in _groups(wanted, logits_RV):
        num_top = max(rows[r].sampling.logprobs or 0 for r in group)
        index_G = torch.tensor(group, device=logits_RV.device)
        token_G = torch.tensor([results[r].token_id for r in group], device=logits_RV.device)
        packed = packed_logprobs(logits_RV[index_G], token_G, num_top)
        for r, logprobs in zip(group, unpack_logprobs(packed), strict=True):
            trimmed = first_alternatives(logprobs, rows[r].sampling.logprobs or 0)
            results[r] = SampledToken(results[r].token_id, trimmed)


def _error(raw_peak: float, peak: float) -> str | None:
    if not math.isfinite(raw_peak):
        return "The model computed logits that are not finite, so no token can be chosen."
    if peak == -math.inf:
        return "No token may follow: the grammar, logit_bias and min_tokens exclude all of them."
    if not math.isfinite(peak):
        return "Penalties or logit_bias made a logit infinite; use values closer to neutral."
    return None
