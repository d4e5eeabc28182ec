"""When blocks of a group come to be used again, learned from those that were.

Each idle time of a block ends with a use, whether the block was still there or not, or nothing more
is known of it from some time on. Counted in buckets that grow with the time, this is the group's
distribution of return times, with a part that never returns. Worth is then what a
place yields while the block waits: over the best horizon, the chance that it is used within it, for
each second that it is going to hold the place. So what will be used in an hour for sure is worth as
much as what will be used in half an hour with a chance of one half, if ever.

Source: the index of Gittins (1979) for the best moment to stop waiting; hit density as a rank
among blocks from Beckmann et al., "LHD: improving cache hit rate by maximizing hit density" (NSDI
2018). Groups with few observations lean upon all groups together, and these upon a hazard that
falls with the idle time, under which the block used longest ago is worth least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FIRST_S: Final = 0.5
_PER_OCTAVE: Final = 2
_NUM_BUCKETS: Final = 44  # up to about 17 days
_MOST_OBSERVATIONS: Final = 200_000.0  # of a group; then old ones count half
_PRIOR: Final = 100.0  # observations that what a group leans upon is worth

_EDGES_S: Final = np.concatenate(([0.0], _FIRST_S * 2.0 ** (np.arange(_NUM_BUCKETS) / _PER_OCTAVE)))
_MIDDLES_S: Final = (_EDGES_S[:-1] + _EDGES_S[1:]) / 2


def bucket_of(idle_s: float) -> int:
    if idle_s < _FIRST_S:
        return 0
    return min(_NUM_BUCKETS - 1, 1 + int(_PER_OCTAVE * math.log2(idle_s / _FIRST_S)))


class ReturnTimes:
    """Of each group, by its number. Seconds throughout."""

    def __init__(self) -> None:
        self._returns: dict[int, list[float]] = {}
        self._waits: dict[int, list[float]] = {}
        self._worth: dict[int, list[float]] = {}
        self._returning: dict[int, list[float]] = {}
        self._num_observed = 0
        self._unknown = _worth(*_distribution(_prior()))

    @property
    def num_observed(self) -> int:
        """Since it learned the last time."""
        return self._num_observed

    def observe_return(self, group: int, idle_s: float) -> None:
        """A block was used again, so long after the last time."""
        _count(self._returns, group, idle_s)
        self._num_observed += 1

    def observe_wait(self, group: int, idle_s: float) -> None:
        """A block was not used for so long. Of what came then nothing is known."""
        _count(self._waits, group, idle_s)
        self._num_observed += 1

    def worth(self, group: int, idle_s: float) -> float:
        """Expected uses for each second that the block holds its place, at best."""
        return self._worth.get(group, self._unknown)[bucket_of(idle_s)]

    def return_probability(self, group: int, idle_s: float) -> float:
        """That a block is ever used again that was idle for so long."""
        shares = self._returning.get(group)
        return 0.5 if shares is None else shares[bucket_of(idle_s)]

    def learn(self, waiting: Iterable[tuple[int, float]] = ()) -> None:
        """Work out anew what the counts say. `waiting` are groups and idle times of blocks that are
        here: that they were not used so far is known of them, and nothing else."""
        self._num_observed = 0
        ages: dict[int, list[float]] = {}
        for group, idle_s in waiting:
            _count(ages, group, idle_s)
        groups = self._returns.keys() | self._waits.keys() | ages.keys()
        for group in groups:
            self._fade(group)
        counts = {group: self._counts(group, ages) for group in groups}
        total = _prior() + sum(counts.values())
        share = _PRIOR / total.sum()
        self._unknown = _worth(*_distribution(total))
        for group, own in counts.items():
            distribution = _distribution(own + share * total)
            self._worth[group] = _worth(*distribution)
            self._returning[group] = _still_to_come(*distribution)

    def _counts(self, group: int, ages: dict[int, list[float]]) -> Floats:
        """Rows: returns by bucket, and idle times that are known to be longer."""
        nothing = [0.0] * _NUM_BUCKETS
        waits = np.array([self._waits.get(group, nothing), ages.get(group, nothing)])
        return np.stack((np.array(self._returns.get(group, nothing)), waits.sum(axis=0)))

    def _fade(self, group: int) -> None:
        kinds = [kind for kind in (self._returns, self._waits) if group in kind]
        if sum(sum(kind[group]) for kind in kinds) > _MOST_OBSERVATIONS:
            for kind in kinds:
                kind[group] = [count / 2 for count in kind[group]]


def _count(kind: dict[int, list[float]], group: int, idle_s: float) -> None:
    kind.setdefault(group, [0.0] * _NUM_BUCKETS)[bucket_of(idle_s)] += 1


def _prior() -> Floats:
    """Half of all come back, and in each bucket as large a part of those that are left."""
    left = 0.9 ** np.arange(_NUM_BUCKETS + 1)
    counts = np.zeros((2, _NUM_BUCKETS))
    counts[0] = _PRIOR / 2 * (left[:-1] - left[1:])
    counts[1, -1] = _PRIOR / 2
    return counts


def _distribution(counts: Floats) -> tuple[Floats, float]:
    """The share that returns in each bucket, and the share that never does (Kaplan and Meier,
    1958: who waits still is counted as long as is known of him)."""
    at_risk = counts.sum(axis=0)[::-1].cumsum()[::-1]
    hazard = counts[0] / np.maximum(at_risk, 1e-12)
    left = np.concatenate(([1.0], np.cumprod(1 - hazard)))
    return left[:-1] * hazard, float(left[-1])


def _still_to_come(returns: Floats, losses: float) -> list[float]:
    later = returns[::-1].cumsum()[::-1]
    shares: list[float] = (later / np.maximum(later + losses, 1e-12)).tolist()
    return shares


def _worth(returns: Floats, losses: float) -> list[float]:
    """For each bucket, the best over all horizons of uses by waiting time, to a block in it."""
    start_s = _EDGES_S[:-1]
    later = returns[::-1].cumsum()[::-1] + losses  # not back at the start of the bucket
    before = np.concatenate(([0.0], returns.cumsum()))
    uses = before[1:][None, :] - before[:-1][:, None]  # from bucket (row) to bucket (column)
    weighted = np.concatenate(([0.0], (returns * _MIDDLES_S).cumsum()))
    until_use_s = weighted[1:][None, :] - weighted[:-1][:, None] - uses * start_s[:, None]
    in_vain_s = (later[:, None] - uses) * (_EDGES_S[1:][None, :] - start_s[:, None])
    waits = np.triu(np.ones((_NUM_BUCKETS, _NUM_BUCKETS), bool))
    waiting_s = np.where(waits, until_use_s + in_vain_s, 1.0)
    rates = np.where(waits, uses, 0.0) / np.maximum(waiting_s, 1e-9)
    best: list[float] = rates.max(axis=1).tolist()
    return best
