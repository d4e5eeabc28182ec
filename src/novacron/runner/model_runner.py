"""ModelRunner: turns the decision about one step into tokens, on one device.

`begin` and `finish` are a few calls each and shall stay so: what only some models or options need
belongs elsewhere and is called from here.

Shapes: T tokens of the step, R rows whose next token is wanted, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from novacron.errors import RequestFailed
from novacron.kernels.table import Choose
from novacron.records.step import (
    ModelRunnerOutput,
    PositionLogprobs,
    SchedulerOutput,
    StepResult,
)
from novacron.runner.captured_step import DecoderStep
from novacron.runner.input_batch import InputBatch, StepInput, StepPart
from novacron.runner.logprobs import prompt_logprobs
from novacron.runner.pooling import add_to_sum, finish_embedding
from novacron.runner.sampler import sample
from novacron.runner.sampling_row import SampledToken, SamplingRow, ending_token_ids

TokenMasks = dict[str, tuple[bytes, ...]]

# Logits of long prompts are computed in pieces: a whole chunk's would take gigabytes.
_PROMPT_LOGITS_ROWS = 128


class TaintedBlocks(Protocol):
    """The KV cache as far as a runner minds it: see KVTensors."""

    def taint(self, block_ids: Iterable[int]) -> None: ...

    def clean(self, block_ids: Collection[int]) -> object: ...


class BegunStep(NamedTuple):
    """A step that is being computed; None: nothing of it has to be."""

    step: SchedulerOutput
    inputs: StepInput | None


class ModelRunner:
    """Holds the decoder, its KV cache and the requests that the scheduler has introduced."""

    def __init__(
        self,
        decoder_step: DecoderStep,
        blocks: TaintedBlocks,
        input_batch: InputBatch,
        *,
        eos_token_ids: tuple[int, ...],
        choose: Choose | None = None,
    ) -> None:
        self._decoder_step = decoder_step
        self._blocks = blocks
        self._input_batch = input_batch
        self._eos_token_ids = eos_token_ids
        self._choose = choose

    def execute(self, step: SchedulerOutput) -> ModelRunnerOutput:
        """Compute one step, where none is under way."""
        return self.finish(self.begin(step))

    def begin(self, step: SchedulerOutput) -> BegunStep:
        """Have a step under way. Steps are finished in their order."""
        self._blocks.clean(self._input_batch.update(step))
        if not step.scheduled:
            return BegunStep(step, None)
        inputs = self._input_batch.prepare(step)
        self._decoder_step.begin(inputs)
        return BegunStep(step, inputs)

    @torch.inference_mode()
    def finish(self, begun: BegunStep) -> ModelRunnerOutput:
        """One result per scheduled request, in the scheduler's order.

        A request whose numbers are not finite gets an error; its neighbours are not affected.
        """
        step, inputs = begun
        if inputs is None:
            return ModelRunnerOutput(step.step, ())
        hidden_TD = self._decoder_step.hidden(inputs)
        results = self._sample(inputs, hidden_TD, step.token_masks)
        for part in inputs.parts:
            if part.request.new.pooling is not None:
                results[part.scheduled.request_id] = self._pool(part, hidden_TD)
            elif part.request.new.sampling.prompt_logprobs is not None:
                self._add_prompt_logprobs(part, hidden_TD, results)
        return self._collect(step, inputs, results)

    def _sample(
        self, inputs: StepInput, hidden_TD: Tensor, token_masks: TokenMasks
    ) -> dict[str, StepResult]:
        """Choose the next tokens of each part that has computed all tokens there are."""
        parts = inputs.ending_parts
        if not parts:
            return {}
        places = [place for part in parts for place in part.chosen_after]
        rows = [row for part in parts for row in self._sampling_rows(part, token_masks)]
        chosen = iter(sample(self._decoder_step.logits(hidden_TD, places), rows, self._choose))
        return {
            part.scheduled.request_id: _accept(part, list(islice(chosen, part.num_choices)))
            for part in parts
        }

    def _sampling_rows(self, part: StepPart, token_masks: TokenMasks) -> list[SamplingRow]:
        """One for the token after the last known one, and one for that after each draft, made as if
        the drafts before it were output already."""
        request, sampling = part.request, part.request.new.sampling
        drafts = part.scheduled.draft_token_ids
        ending = ending_token_ids(sampling, self._eos_token_ids)
        masks = token_masks.get(part.scheduled.request_id) or (None,) * part.num_choices
        prompt, output = request.prompt_token_ids, request.output_token_ids
        rows = [SamplingRow(sampling, prompt, output, masks[0], ending)]
        rows += [
            SamplingRow(sampling, prompt, [*output, *drafts[:count]], masks[count], ending)
            for count in range(1, part.num_choices)
        ]
        return rows

    def _pool(self, part: StepPart, hidden_TD: Tensor) -> StepResult:
        """Add the part to the request's embedding; at the prompt's end, give it out."""
        request, row = part.request, part.row
        hidden = hidden_TD[row.first_token : row.first_token + row.num_tokens]
        pooling = request.new.pooling
        assert pooling is not None
        if pooling == "last":
            hidden = hidden[-1:]
        elif row.start > 0 and request.hidden_sum_D is None:
            raise AssertionError("a mean over a prompt needs all of it computed, not from a cache")
        request.hidden_sum_D = add_to_sum(request.hidden_sum_D, hidden, pooling)
        if not part.reaches_end:
            return StepResult(part.scheduled.request_id)
        return finish_embedding(part.scheduled.request_id, request.hidden_sum_D)

    def _add_prompt_logprobs(
        self, part: StepPart, hidden_TD: Tensor, results: dict[str, StepResult]
    ) -> None:
        request_id = part.scheduled.request_id
        try:
            found = self._prompt_logprobs(part, hidden_TD)
        except RequestFailed as error:
            results[request_id] = StepResult(request_id, error=str(error))
            return
        result = results.get(request_id, StepResult(request_id))
        if result.error is None:
            results[request_id] = StepResult(
                request_id, result.token_ids, result.logprobs, tuple(found)
            )

    def _prompt_logprobs(self, part: StepPart, hidden_TD: Tensor) -> list[PositionLogprobs]:
        """For the part's prompt positions, those of the tokens that follow them."""
        row, prompt = part.row, part.request.prompt_token_ids
        num_top = part.request.new.sampling.prompt_logprobs
        assert num_top is not None
        next_token_ids = prompt[row.start + 1 : row.length + 1]
        found: list[PositionLogprobs] = []
        for start in range(0, len(next_token_ids), _PROMPT_LOGITS_ROWS):
            wanted = next_token_ids[start : start + _PROMPT_LOGITS_ROWS]
            first = row.first_token + start
            logits = self._decoder_step.logits(hidden_TD, range(first, first + len(wanted)))
            found += prompt_logprobs(logits, wanted, num_top)
        return found

    def _collect(
        self, step: SchedulerOutput, inputs: StepInput, results: dict[str, StepResult]
    ) -> ModelRunnerOutput:
        for part in inputs.parts:
            result = results.get(part.scheduled.request_id)
            if result is not None and result.error is not None:
                self._blocks.taint(part.request.block_ids)
        return ModelRunnerOutput(
            step.step,
            tuple(
                results.get(part.request_id) or StepResult(part.request_id)
                for part in step.scheduled
            ),
        )


def _accept(part: StepPart, chosen: list[SampledToken]) -> StepResult:
    """Append to the request what was chosen for it, up to the first wrong draft's place.

    The choice at a place depends only on the tokens before it, so it holds if these are right.
    One that failed is left to the next step, which comes to it without a guess.
    """
    request_id = part.scheduled.request_id
    if chosen[0].error is not None:
        return StepResult(request_id, error=chosen[0].error)
    taken = [chosen[0]]
    for draft, token in zip(part.scheduled.draft_token_ids, chosen[1:], strict=True):
        if taken[-1].token_id != draft or token.error is not None:
            break
        taken.append(token)
    token_ids = tuple(token.token_id for token in taken)
    part.request.output_token_ids += token_ids
    logprobs = tuple(token.logprobs for token in taken if token.logprobs is not None)
    return StepResult(request_id, token_ids, logprobs)
