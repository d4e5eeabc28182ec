"""LossRecord: how often ranks on other hosts were lost of late, and when that is enough. Pure."""

from __future__ import annotations

from typing import Final

_MOST_FAILURES: Final = 3  # to make the group anew, one after the other without a step
_MOST_CRASHES: Final = 3  # one after the other, each after fewer steps than these
_STEPS_THAT_ACQUIT: Final = 1000


class LossRecord:
    """Ranks that crash again and again may do so for what runs, which nobody knows who only
    computes it. A link that is lost is nobody's fault."""

    def __init__(self) -> None:
        self._num_tries = self._num_crashes = self._num_steps = 0

    def see_step(self) -> None:
        """One was computed by all."""
        self._num_tries = 0
        self._num_steps += 1
        if self._num_steps == _STEPS_THAT_ACQUIT:
            self._num_crashes = 0

    def may_try(self) -> bool:
        """Whether to make the group anew once more."""
        self._num_tries += 1
        return self._num_tries <= _MOST_FAILURES

    def may_go_on(self, *, after_a_crash: bool) -> bool:
        """The group is made: whether it may compute what ran before."""
        self._num_steps = 0
        self._num_crashes += after_a_crash
        return self._num_crashes <= _MOST_CRASHES
