"""Sessions: which conversations there are, where their blocks are, and when they come back. Pure.

A session is a digest that its requests carry. Of each the chain of blocks at the end of its last
turn is kept, and how long it usually takes from the end of an answer to the next turn. Sessions
that were not seen for long are forgotten, and beyond a number those seen longest ago.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from novacron.records.block import BlockHash
from novacron.records.output import SessionStats

_PAUSE_WEIGHT: Final = 0.3  # of the newest pause in the running mean


@dataclass(slots=True)
class _Session:
    chain: tuple[BlockHash, ...] = ()
    num_turns: int = 0
    num_running: int = 0
    ended_s: float = 0.0  # when the last answer was complete
    pause_s: float | None = None  # running mean from there to the next turn


class Sessions:
    """Times are of one monotonic clock, passed in."""

    def __init__(self, *, most_sessions: int = 4096, forget_after_s: float = 3600.0) -> None:
        self._most_sessions = most_sessions
        self._forget_after_s = forget_after_s
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()  # last seen last
        self._pause_s: float | None = None  # of all sessions
        self._num_turns = self._num_returns = 0
        self._return_tokens = self._return_hit_tokens = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self, tag: bytes, num_tokens: int, num_cached_tokens: int, now_s: float) -> None:
        """A request of the session starts to be computed, so much of its prompt being there."""
        self._forget(now_s)
        session = self._sessions.setdefault(tag, _Session())
        self._sessions.move_to_end(tag)
        self._num_turns += 1
        if session.num_turns:
            self._num_returns += 1
            self._return_tokens += num_tokens
            self._return_hit_tokens += num_cached_tokens
        if session.num_turns and not session.num_running:
            pause_s = max(0.0, now_s - session.ended_s)
            session.pause_s = _mean(session.pause_s, pause_s)
            self._pause_s = _mean(self._pause_s, pause_s)
        session.num_turns += 1
        session.num_running += 1

    def end(self, tag: bytes, chain: Sequence[BlockHash], now_s: float) -> None:
        """A request of the session has ended; the longest chain of parallel ones counts."""
        session = self._sessions.get(tag)
        if session is None:  # forgotten meanwhile
            return
        session.num_running = max(0, session.num_running - 1)
        session.ended_s = now_s
        if len(chain) >= len(session.chain) or chain[:1] != list(session.chain[:1]):
            session.chain = tuple(chain)

    def likely_to_return(self, now_s: float, horizon_s: float) -> Iterator[tuple[BlockHash, ...]]:
        """The chains of idle sessions whose next turn is due within the horizon, by the mean of
        their own pauses, or of all while they have none. The one seen last comes first."""
        self._forget(now_s)
        for session in reversed(self._sessions.values()):
            pause_s = self._pause_s if session.pause_s is None else session.pause_s
            if session.num_running or not session.chain or pause_s is None:
                continue
            due_s = session.ended_s + pause_s
            if now_s >= due_s - horizon_s and now_s <= due_s + pause_s + horizon_s:
                yield session.chain

    def clear(self) -> None:
        """Forget where blocks are; the sessions themselves go on."""
        for session in self._sessions.values():
            session.chain = ()

    def stats(self) -> SessionStats:
        return SessionStats(
            num_sessions=len(self._sessions),
            num_turns=self._num_turns,
            num_returns=self._num_returns,
            return_tokens=self._return_tokens,
            return_hit_tokens=self._return_hit_tokens,
        )

    def _forget(self, now_s: float) -> None:
        while self._sessions:
            session = next(iter(self._sessions.values()))
            is_old = not session.num_running and now_s - session.ended_s > self._forget_after_s
            if not is_old and len(self._sessions) <= self._most_sessions:
                return
            self._sessions.popitem(last=False)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _PAUSE_WEIGHT * (new - old)
