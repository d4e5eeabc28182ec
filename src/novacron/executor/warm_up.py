"""A first step before the first request, so that no user waits for what happens only once:
libraries choosing and compiling their kernels, memory being mapped."""

from __future__ import annotations

from novacron.executor.executor import Executor
from novacron.records.request import SamplingParams
from novacron.records.step import DraftPart, NewRequest, ScheduledTokens, SchedulerOutput

_REQUEST_ID = "warm-up"
_PROMPT_TOKENS = 8


def warm_up(
    executor: Executor, *, max_model_len: int, block_size: int, is_drafting: bool = False
) -> None:
    """Compute a short prompt and one token after it, in the first block. Leaves no request.

    `is_drafting`: have the draft model see the prompt, and guess, as well.
    """
    num_prompt = min(_PROMPT_TOKENS, max_model_len - 1, block_size - 1)
    if num_prompt < 1:
        return
    request = NewRequest(
        _REQUEST_ID, (0,) * num_prompt, num_prompt, SamplingParams(temperature=0.0, seed=0)
    )
    prompt = ScheduledTokens(_REQUEST_ID, 0, num_prompt, (0,))
    decode = ScheduledTokens(_REQUEST_ID, num_prompt, 1, ())
    guess = DraftPart(_REQUEST_ID, 0, num_prompt, 1)
    first = SchedulerOutput(-3, (request,), (prompt,), (), (), drafting=(guess,) * is_drafting)
    if is_drafting:
        executor.draft(first)
    executor.execute(first)
    executor.execute(SchedulerOutput(-2, (), (decode,), (), ()))
    executor.execute(SchedulerOutput(-1, (), (), (), (_REQUEST_ID,)))
