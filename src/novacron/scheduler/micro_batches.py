"""How the work that there is becomes several steps, where several may be in flight. Pure.

Stages of a pipeline are busy if each has a step to compute, so steps are smaller than they could
be. With one step in flight there are no limits but the settings'.
"""

from __future__ import annotations

from typing import Final

_CHUNKS_PER_STEP: Final = 2  # of what is pending: the first and the last one find idle stages
_LEAST_TOKENS: Final = 128  # fewer take nearly as long: weights are read for them all the same


def most_requests(num_running: int, max_in_flight: int) -> int:
    """How many of the running requests join a step, so that others are left for the next ones."""
    return -(-num_running // max_in_flight)


def most_tokens(budget: int, num_pending: int, num_running: int, max_in_flight: int) -> int:
    """How many tokens a step takes of those that wait to be computed: at least one for each running
    request, and no more than `budget`, which is as many."""
    if max_in_flight == 1:
        return budget
    share = -(-num_pending // (_CHUNKS_PER_STEP * max_in_flight))
    return min(budget, max(share, _LEAST_TOKENS, num_running + 1))
