"""What is told of ranks: never that a process computes which has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from novacron.engine.pulse import Pulse, ranks_of
from novacron.engine.rank_news import RankNews
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.records.output import EngineStats


class Ranks(MultiprocessExecutor):
    """As it looks from outside: rank 1 is held by the process `pid`."""

    spec = cast(Any, SimpleNamespace(rank_pids=(11,)))
    num_ranks_replaced = 0
    rank_pids = property(lambda self: (self.pid,))  # type: ignore[assignment]
    lost_ranks = property(lambda self: (1,) if self.is_lost else ())  # type: ignore[assignment]

    def __init__(self) -> None:
        self.pid, self.is_lost = 11, False

    def rank_stats(self) -> tuple[()]:
        return ()

    def tell_losses(self, on_change: Any) -> None:
        self.on_change = on_change


class SeenPulse:
    def __init__(self) -> None:
        self.lost_ranks = lambda: 0
        self.seen: list[tuple[int, ...]] = []

    def look(self) -> None:
        self.seen.append(ranks_of(self.lost_ranks()))


def test_a_rank_counts_as_lost_until_its_new_process_has_been_told_of() -> None:
    ranks, pulse = Ranks(), SeenPulse()
    news = RankNews(ranks)
    news.tell_losses(cast(Pulse, pulse))
    ranks.is_lost = True
    ranks.on_change()
    ranks.pid, ranks.is_lost = 12, False  # it computes the step that was cut off, with the others
    ranks.on_change()
    assert pulse.seen == [(1,), (1,)], "whoever asks knows of process 11 only"
    assert news.is_there
    stats = news.told_in(EngineStats())
    pulse.look()
    assert pulse.seen[-1] == (1,), "it is not on its way yet"
    news.see_told(stats)
    assert stats.rank_pids == (12,)
    assert pulse.seen[-1] == ()
    assert not news.is_there


def test_what_was_told_while_the_next_process_came_is_not_taken_for_it() -> None:
    ranks, pulse = Ranks(), SeenPulse()
    news = RankNews(ranks)
    news.tell_losses(cast(Pulse, pulse))
    ranks.pid = 12
    stats = news.told_in(EngineStats())
    ranks.pid = 13
    news.see_told(stats)
    assert pulse.seen[-1] == (1,)
    assert news.is_there
