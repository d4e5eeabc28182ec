"""DraftRunner: makes guesses with a smaller model, for all requests of a step in one batch.

It follows the same decisions as the ModelRunner and keeps its KV in tensors of its own under the
same block tables. What of it is valid is the scheduler's knowledge: here positions are computed as
they are asked for.

Shapes: T tokens of a pass, R rows that want a guess, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import pad

from novacron.kernels.table import Choose
from novacron.records.step import (
    DraftOutput,
    DraftPart,
    DraftPass,
    ModelRunnerOutput,
    ScheduledTokens,
    SchedulerOutput,
)
from novacron.runner.captured_step import DecoderStep
from novacron.runner.input_batch import InputBatch, StepPart
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.sampler import sample
from novacron.runner.sampling_row import SamplingRow, ending_token_ids


class DraftRunner:
    """Holds the draft model, its KV tensors and, once more, the requests that ranks hold.

    For every step `draft` if guesses are wanted, then `follow`. Where several steps are under way,
    `begin` comes between, and each is followed once its result is there. A guess is what the
    request's own parameters and seed would choose from the draft model's logits: where the two
    models agree on the odds, they then agree on the token as well, also if it is drawn at random.

    `own_vocab_size` is that of the draft model, `vocab_size` of the model that is guessed for.
    Either may have rows beyond the common vocabulary, as padding: what only one of them has is
    never guessed, and read as the last token known.
    """

    def __init__(
        self,
        decoder_step: DecoderStep,
        kv_tensors: KVTensors,
        input_batch: InputBatch,
        *,
        own_vocab_size: int,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        choose: Choose | None = None,
    ) -> None:
        self._decoder_step = decoder_step
        self._kv_tensors = kv_tensors
        self._input_batch = input_batch
        self._own_vocab_size = own_vocab_size
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._choose = choose
        self._last_step: int | None = None

    @torch.inference_mode()
    def draft(self, step: SchedulerOutput) -> DraftOutput:
        """Do the work in `step.drafting`, one result for each."""
        self.begin(step)
        drafts: dict[str, list[int]] = {work.request_id: [] for work in step.drafting}
        going = step.drafting
        passes = []
        while going:
            started_s = time.perf_counter()
            parts = tuple(_next_part(work, drafts[work.request_id]) for work in going)
            wanting = {
                work.request_id: drafts[work.request_id] for work in going if work.num_drafts > 0
            }
            for request_id, token_id in self._guess(parts, wanting).items():
                drafts[request_id].append(token_id)
            passes.append(
                DraftPass(sum(part.num_tokens for part in parts), time.perf_counter() - started_s)
            )
            num_passes = len(passes)
            going = tuple(
                work
                for work in going
                if len(drafts[work.request_id]) == num_passes < work.num_drafts
            )
        return DraftOutput(
            step.step,
            tuple(tuple(drafts[work.request_id]) for work in step.drafting),
            tuple(passes),
        )

    def begin(self, step: SchedulerOutput) -> None:
        """Take in what a step begins with, drafted for or not. Steps begin in their order."""
        if self._last_step is None or step.step > self._last_step:
            self._last_step = step.step
            self._kv_tensors.clean(self._input_batch.update(step))

    def follow(self, step: SchedulerOutput, result: ModelRunnerOutput) -> None:
        """Take in what became of a step, drafted for or not."""
        self.begin(step)
        for one in result.results:
            self._input_batch.append(one.request_id, one.token_ids)

    def forget_requests(self) -> None:
        """All of them: who plans steps introduces them anew."""
        self._input_batch.forget_requests()

    def _guess(
        self, parts: tuple[ScheduledTokens, ...], wanting: Mapping[str, list[int]]
    ) -> dict[str, int]:
        """One pass over the parts; a guess for each request in `wanting`, which holds those before
        it, unless it cannot have one."""
        inputs = self._input_batch.prepare(SchedulerOutput(0, (), parts, (), ()))
        if self._own_vocab_size < self._vocab_size:
            inputs.token_ids_T.clamp_(max=self._own_vocab_size - 1)
        hidden_TD = self._decoder_step.hidden(inputs)
        chosen = [part for part in inputs.parts if part.scheduled.request_id in wanting]
        if not chosen:
            return {}
        places = [part.row.first_token + part.row.num_tokens - 1 for part in chosen]
        rows = [self._sampling_row(part, wanting[part.scheduled.request_id]) for part in chosen]
        tokens = sample(self._logits(hidden_TD, places), rows, self._choose)
        found: dict[str, int] = {}
        for part, token in zip(chosen, tokens, strict=True):
            if token.error is None:
                found[part.scheduled.request_id] = token.token_id
            else:
                self._kv_tensors.taint(part.request.block_ids)
        return found

    def _logits(self, hidden_TD: Tensor, places: list[int]) -> Tensor:
        logits_RV = self._decoder_step.logits(hidden_TD, places)
        more = self._vocab_size - logits_RV.shape[1]
        return logits_RV if more == 0 else pad(logits_RV, (0, more), value=-math.inf)

    def _sampling_row(self, part: StepPart, drafts: list[int]) -> SamplingRow:
        request, sampling = part.request, part.request.new.sampling
        if sampling.logprobs is not None:
            sampling = msgspec.structs.replace(sampling, logprobs=None)
        return SamplingRow(
            sampling,
            request.prompt_token_ids,
            [*request.output_token_ids, *drafts] if drafts else request.output_token_ids,
            suppressed_token_ids=ending_token_ids(sampling, self._eos_token_ids),
        )


def _next_part(work: DraftPart, drafts: list[int]) -> ScheduledTokens:
    """What the next pass computes of a request: at first known tokens, then its latest guess."""
    if not drafts:
        return ScheduledTokens(work.request_id, work.start, work.num_tokens, ())
    place = work.start + work.num_tokens + len(drafts) - 1
    return ScheduledTokens(work.request_id, place, 1, (), (drafts[-1],))
