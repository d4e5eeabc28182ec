"""HeartMonitor: whether an engine process that has not ended is as good as dead. Pure.

Time is counted in looks, not read off a clock: where this process slept as well (the machine was
suspended, a terminal stopped the whole job), no look was missed, and nobody is blamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novacron.engine.pulse import BEAT_S, Reading

_LOADING_FACTOR: Final = 12  # a start keeps the interpreter for long, importing and reading


@dataclass(frozen=True)
class VitalSigns:
    """What was seen of an engine. `stopped_pids`: its processes that the system keeps stopped."""

    pulse: Reading
    stopped_pids: tuple[int, ...] = ()


class HeartMonitor:
    """Looks at one engine process every `look_s`.

    `heartbeat_timeout_s`: how long it may show no sign of life, or one of its processes be stopped;
    while it loads, the former may take twelve times as long. `step_timeout_s`: how long its loop
    may be in one step. 0: for ever.
    """

    def __init__(self, heartbeat_timeout_s: float, step_timeout_s: float, look_s: float) -> None:
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._step_timeout_s = step_timeout_s
        self._look_s = look_s
        self._num_beats = -1
        self._num_still = 0
        self._num_stopped = 0

    def look(self, signs: VitalSigns, *, is_loading: bool) -> str | None:
        """Why it is to be given up, in words; None if it is not."""
        pulse = signs.pulse
        self._num_still = 0 if pulse.num_beats != self._num_beats else self._num_still + 1
        self._num_beats = pulse.num_beats
        self._num_stopped = self._num_stopped + 1 if signs.stopped_pids else 0
        stopped_s, still_s = self._num_stopped * self._look_s, self._num_still * self._look_s
        stuck_s = pulse.num_stuck * BEAT_S
        patience_s = self._heartbeat_timeout_s
        if 0 < patience_s < stopped_s:
            pids = ", ".join(map(str, signs.stopped_pids))
            return f"process {pids} has been stopped for {stopped_s:g} s"
        if 0 < patience_s * (_LOADING_FACTOR if is_loading else 1) < still_s:
            return f"there was no sign of life for {still_s:g} s (heartbeat_timeout)"
        if 0 < self._step_timeout_s < stuck_s and not is_loading:
            return f"one step has taken {stuck_s:g} s (step_timeout)"
        return None
