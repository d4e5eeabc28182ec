"""StepPace: how many prompt tokens a step may have so that running answers keep their pace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from novacron.scheduler.linear_times import LinearTimes

_LEAST_TOKENS: Final = 16  # of prompts in a step, whatever it costs: they must come to an end
_SHARE: Final = 0.8  # of the time wanted per token, that a step is planned to take
_PAUSE_S: Final = 5.0  # what lies between two steps for longer is no step


class StepPace:
    """Learns from the time between steps, which follow each other while there is work, how long
    steps of so many tokens take."""

    def __init__(self) -> None:
        self._times = LinearTimes()
        self._begun_s: float | None = None
        self._num_tokens = 0
        self._num_left: int | None = None  # prompt tokens; None: any number

    def begin(self, now_s: float, tpots_s: Sequence[float]) -> None:
        """A step is planned; `tpots_s`: what the running requests want between tokens; 0: nothing
        said."""
        if self._begun_s is not None and self._num_tokens:
            seconds = now_s - self._begun_s
            if 0 < seconds < _PAUSE_S:
                self._times.observe(self._num_tokens, seconds)
        self._begun_s, self._num_tokens = now_s, 0
        wanted_s = min((tpot_s for tpot_s in tpots_s if tpot_s), default=0.0)
        self._num_left = None
        if wanted_s and self._times.per_piece_s > 0:
            room_s = _SHARE * wanted_s - self._times.latency_s
            num_tokens = int(room_s / self._times.per_piece_s) - len(tpots_s)
            self._num_left = max(_LEAST_TOKENS, num_tokens)

    def most_tokens(self, num_tokens: int) -> int:
        """Of a prompt. At least one, so that whoever runs goes on."""
        return num_tokens if self._num_left is None else min(num_tokens, max(1, self._num_left))

    def see(self, num_tokens: int) -> None:
        """So many tokens of one request are in the step."""
        self._num_tokens += num_tokens
        if self._num_left is not None and num_tokens > 1:
            self._num_left = max(0, self._num_left - num_tokens)
