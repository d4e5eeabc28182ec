"""Whether ranks that keep rank 0 waiting compute anything, or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
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


def wants_core(pid: int) -> bool:
    """Whether a thread of the process, but for the one that asks, runs or would if it had a core.
    False where the system does not tell."""
    own = str(threading.get_native_id())
    try:
        return any(
            task.name != own and _state(task) == "R" for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except OSError:
        return False


def _state(task: Path) -> str:
    """As in proc(5). Empty of a thread that has ended meanwhile."""
    try:
        return (task / "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


class RankPulse:
    """Of the processes with these ids. A long step is no reason to give up, as long as somebody
    computes it, or would if the machine were less busy."""

    def __init__(
        self,
        pids: Sequence[int],
        patience_s: float,
        cpu_time_s: Callable[[int], float] = cpu_time_s,
        wants_core: Callable[[int], bool] = wants_core,
    ) -> None:
        self._pids = tuple(pids)
        self._cpu_time_s = cpu_time_s
        self._wants_core = wants_core
        self._patience_s = patience_s
        self._waited_s = 0.0
        self._computed_s = 0.0  # by all of them, when last looked

    def see_delay(self, seconds: float) -> None:
        """Somebody has waited so long. Raises HandoverLost after `patience_s` in which nothing was
        computed."""
        computed_s = sum(map(self._cpu_time_s, self._pids))
        is_working = computed_s - self._computed_s >= _LEAST_SHARE * seconds or any(
            map(self._wants_core, self._pids)
        )
        self._computed_s = computed_s
        self._waited_s = 0.0 if is_working else self._waited_s + seconds
        if self._waited_s > self._patience_s:
            raise HandoverLost(f"no other rank has computed anything for {self._waited_s:.0f} s")
