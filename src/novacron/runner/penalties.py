"""Changes to logits that come before temperature: token masks, biases and penalties.

Called by the sampler. Rows that ask for nothing cost nothing. The order is vLLM's: masks, minimum
length, logit_bias, then the penalties, repetition first.

Repetition (Keskar et al., "CTRL", 2019): logits of tokens in prompt or output are divided by the
penalty where positive and multiplied by it where negative. Frequency and presence (OpenAI API
reference): logit -= count * frequency_penalty + (count > 0) * presence_penalty, over the output.

Shape letters: R rows, G rows of a group, V vocabulary, E single elements to edit, W mask bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novacron.runner.sampling_row import SamplingRow, TokenIds


def edit_logits(logits_RV: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The logits to choose from: `logits_RV` itself if no row asks for a change, else a copy."""
    masked = [r for r, row in enumerate(rows) if row.token_mask is not None]
    suppressed = [r for r, row in enumerate(rows) if _suppresses(row)]
    biased = [r for r, row in enumerate(rows) if row.sampling.logit_bias]
    penalised = [r for r, row in enumerate(rows) if _penalises(row)]
    if not (masked or suppressed or biased or penalised):
        return logits_RV
    edited_RV = logits_RV.clone()
    if masked:
        _apply_masks(edited_RV, masked, rows)
    if suppressed:
        _suppress(edited_RV, suppressed, rows)
    if biased:
        _apply_bias(edited_RV, biased, rows)
    if penalised:
        _apply_penalties(edited_RV, penalised, rows)
    return edited_RV


def _penalises(row: SamplingRow) -> bool:
    sampling = row.sampling
    return (
        sampling.repetition_penalty != 1.0
        or sampling.frequency_penalty != 0.0
        or sampling.presence_penalty != 0.0
    )


def _suppresses(row: SamplingRow) -> bool:
    # A grammar decides by itself when the text may end, see _mask_bytes.
    return row.must_go_on and bool(row.suppressed_token_ids) and row.token_mask is None


def _apply_masks(logits_RV: Tensor, masked: list[int], rows: Sequence[SamplingRow]) -> None:
    vocab_size, device = logits_RV.shape[1], logits_RV.device
    mask_GW = np.stack([_mask_bytes(rows[r], vocab_size) for r in masked])
    # Bits are spread on the device: eight times fewer bytes to copy.
    bytes_GW = torch.from_numpy(mask_GW).to(device)
    shifts = torch.arange(8, dtype=torch.uint8, device=device)
    bits_GV = (bytes_GW[:, :, None] >> shifts).bitwise_and_(1).flatten(1)[:, :vocab_size]
    index_G = torch.tensor(masked, device=device)
    logits_RV[index_G] = logits_RV[index_G].masked_fill_(bits_GV == 0, -torch.inf)


def _mask_bytes(row: SamplingRow, vocab_size: int) -> NDArray[np.uint8]:
    """The row's mask, without the tokens that would end it too early.

    Where those are all that the grammar allows, the grammar wins: its text is complete.
    """
    assert row.token_mask is not None
    mask_W = np.frombuffer(row.token_mask, dtype=np.uint8)
    assert len(mask_W) == (vocab_size + 31) // 32 * 4, "the mask is of another vocabulary"
    if not row.must_go_on:
        return mask_W
    going_on_W = mask_W.copy()
    for token_id in row.suppressed_token_ids:
        going_on_W[token_id >> 3] &= ~(1 << (token_id & 7)) & 0xFF
    return going_on_W if going_on_W.any() else mask_W


def _suppress(logits_RV: Tensor, suppressed: list[int], rows: Sequence[SamplingRow]) -> None:
    elements = [(r, token) for r in suppressed for token in rows[r].suppressed_token_ids]
    index_E2 = torch.tensor(elements, device=logits_RV.device)
    logits_RV[index_E2[:, 0], index_E2[:, 1]] = -torch.inf


def _apply_bias(logits_RV: Tensor, biased: list[int], rows: Sequence[SamplingRow]) -> None:
    elements = [(r, token) for r in biased for token in rows[r].sampling.logit_bias]
    biases = [bias for r in biased for bias in rows[r].sampling.logit_bias.values()]
    index_E2 = torch.tensor(elements, device=logits_RV.device)
    bias_E = torch.tensor(biases, dtype=logits_RV.dtype, device=logits_RV.device)
    logits_RV[index_E2[:, 0], index_E2[:, 1]] += bias_E


class _Penalty(NamedTuple):
    """What one row's penalties do to the tokens it has seen."""

    token_ids_E: NDArray[np.int64]
    factor_E: NDArray[np.float32]
    subtrahend_E: NDArray[np.float32]


def _apply_penalties(logits_RV: Tensor, penalised: list[int], rows: Sequence[SamplingRow]) -> None:
    vocab_size, device = logits_RV.shape[1], logits_RV.device
    penalties = [_penalty(rows[r], vocab_size) for r in penalised]
    lengths = [len(penalty.token_ids_E) for penalty in penalties]
    index_E = torch.from_numpy(np.repeat(penalised, lengths)).to(device)
    token_E, factor_E, subtrahend_E = (
        torch.from_numpy(np.concatenate(column)).to(device)
        for column in zip(*penalties, strict=True)
    )
    x_E = logits_RV[index_E, token_E]
    x_E = torch.where(x_E > 0, x_E / factor_E, x_E * factor_E) - subtrahend_E
    logits_RV[index_E, token_E] = x_E


def _penalty(row: SamplingRow, vocab_size: int) -> _Penalty:
    sampling = row.sampling
    count_V = np.bincount(_ids(row.output_token_ids), minlength=vocab_size)
    seen_V = count_V > 0
    if sampling.repetition_penalty != 1.0:
        seen_V[_ids(row.prompt_token_ids)] = True
    token_ids_E = np.flatnonzero(seen_V)
    count_E = count_V[token_ids_E]
    subtrahend_E = count_E * sampling.frequency_penalty + (count_E > 0) * sampling.presence_penalty
    factor_E = np.full(len(token_ids_E), sampling.repetition_penalty, dtype=np.float32)
    return _Penalty(token_ids_E, factor_E, subtrahend_E.astype(np.float32))


def _ids(token_ids: TokenIds) -> NDArray[np.int64]:
    return np.asarray(token_ids, dtype=np.int64)
