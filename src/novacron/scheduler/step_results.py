"""What the result of a step adds to one request."""

from __future__ import annotations

from novacron.records.step import PositionLogprobs, ScheduledTokens
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.stopping import Stop


def take_tokens(state: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
    """Append sampled tokens, of which there must be one, up to the one that ends the request if
    there is such a one. Returns how many were taken, and why it ends."""
    num_before = state.num_output_tokens
    for num_taken, token_id in enumerate(token_ids, start=1):
        state.token_ids.append(token_id)
        ending = state.stop_conditions.after(token_id, num_before + num_taken)
        if ending is not None:
            break
    return num_taken, ending


def new_prompt_logprobs(
    state: RequestState, part: ScheduledTokens, logprobs: tuple[PositionLogprobs, ...]
) -> tuple[PositionLogprobs, ...]:
    """Those not sent before a preemption. The part from `start` on brings the positions from
    `start + 1` on, which its logits predict."""
    if not logprobs:
        return ()
    new = logprobs[max(state.num_prompt_logprobs - part.start, 0) :]
    state.num_prompt_logprobs += len(new)
    return new
