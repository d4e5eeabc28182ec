"""A first step before the first request, so that no user waits for what happens only once:
libraries choosing and compiling their kernels, memory being mapped."""

from __future__ import annotations

from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.model_runner import ModelRunner

_REQUEST_ID = "warm-up"
_PROMPT_TOKENS = 8


def warm_up(runner: ModelRunner, *, max_model_len: int, block_size: int) -> None:
    """Compute a short prompt and one token after it, in the first block. Leaves no request."""
    num_prompt = min(_PROMPT_TOKENS, max_model_len - 1, block_size - 1)
    if num_prompt < 1:
        return
    request = NewRequest(
        _REQUEST_ID, (0,) * num_prompt, num_prompt, SamplingParams(temperature=0.0, seed=0)
    )
    prompt = ScheduledTokens(_REQUEST_ID, 0, num_prompt, (0,))
    decode = ScheduledTokens(_REQUEST_ID, num_prompt, 1, ())
    runner.execute(SchedulerOutput(0, (request,), (prompt,), (), ()))
    runner.execute(SchedulerOutput(0, (), (decode,), (), ()))
    runner.execute(SchedulerOutput(0, (), (), (), (_REQUEST_ID,)))
