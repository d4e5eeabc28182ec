"""The engine process's side of the watch over quality: given what goes in and comes out."""

from __future__ import annotations

from collections.abc import Iterable

from novacron.engine.watched_answers import WatchedAnswers
from novacron.executor.quality_watch import QualityWatch
from novacron.quality.document import Document
from novacron.records.output import EngineOutput, WatchStats
from novacron.records.request import Request


class NoWatch:
    """Quality is not watched."""

    has_work = False
    num_scored = 0

    def begin(self, request: Request) -> None:
        pass

    def offer(self, answer: Document) -> None:
        pass

    def follow(self, outputs: Iterable[EngineOutput]) -> None:
        pass

    def work(self, *, is_idle: bool) -> bool:
        return False

    def stats(self) -> WatchStats | None:
        return None


class AnswerWatch:
    """A share of the answers go to a QualityWatch."""

    def __init__(self, watch: QualityWatch, share: float) -> None:
        self._watch = watch
        self._answers = WatchedAnswers(share)
        self.begin, self.offer, self.work = self._answers.begin, watch.offer, watch.work

    @property
    def has_work(self) -> bool:
        return self._watch.has_work

    @property
    def num_scored(self) -> int:
        return self._watch.num_scored

    def follow(self, outputs: Iterable[EngineOutput]) -> None:
        for answer in self._answers.follow(outputs):
            self._watch.offer(answer)

    def stats(self) -> WatchStats | None:
        return self._watch.stats()
