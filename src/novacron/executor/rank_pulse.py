"""Whether ranks that keep rank 0 waiting compute anything, or hang."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import psutil

from novacron.parallel.handover import HandoverLost

_LEAST_SHARE: Final = 0.05  # of a core, by all of them: who only waits takes far less


def cpu_time_s(pid: int) -> float:
    """0 of a process that is gone: that is for others to notice."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


class RankPulse:
    """Of the processes with these ids. A long step is no reason to give up, as long as somebody
    computes it."""

    def __init__(
        self,
        pids: Sequence[int],
        patience_s: float,
        cpu_time_s: Callable[[int], float] = cpu_time_s,
    ) -> None:
        self._pids = tuple(pids)
        self._cpu_time_s = cpu_time_s
        self._patience_s = patience_s
        self._waited_s = 0.0
        self._computed_s = 0.0  # by all of them, when last looked

    def see_delay(self, seconds: float) -> None:
        """Somebody has waited so long. Raises HandoverLost after `patience_s` in which nothing was
        computed."""
        computed_s = sum(map(self._cpu_time_s, self._pids))
        is_working = computed_s - self._computed_s >= _LEAST_SHARE * seconds
        self._computed_s = computed_s
        self._waited_s = 0.0 if is_working else self._waited_s + seconds
        if self._waited_s > self._patience_s:
            raise HandoverLost(f"no other rank has computed anything for {self._waited_s:.0f} s")
