"""What crosses between the bench and cache_fault_trials, each as a line of JSON: a FaultJob in; out
a FaultTurn for the baseline, then one for each turn, in order."""

from __future__ import annotations

from typing import Final

import msgspec

BASELINE: Final = "without tiers"


class FaultJob(msgspec.Struct, frozen=True, kw_only=True):
    """Every prompt is asked in each turn; turns are all faults, each with all chances, so often as
    there are rounds."""

    model_path: str
    settings: dict[str, int | float | str]  # of the LLM, with tiers or without
    redis_socket: str
    deadline_s: float
    prompts: tuple[tuple[int, ...], ...]
    output_tokens: int
    faults: tuple[str, ...]
    chances: tuple[float, ...]
    rounds: int
    seed: int


class FaultTurn(msgspec.Struct, frozen=True, kw_only=True):
    """Requests under one fault. `num_wrong` have other tokens than without tiers."""

    fault: str
    seconds: tuple[float, ...]  # of each request
    num_wrong: int = 0
    num_failed: int = 0
    num_faults: int = 0
    num_cached_tokens: int = 0
    num_cached_before: int = 0  # the same prompts, before the fault
