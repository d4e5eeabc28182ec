"""QualityWatch: re-scores answers with the serving model and with its reference, a pass at a time.

The reference is the checkpoint unrounded, its weights mapped from disk and its keys and values in
the model's own precision. The serving model's own weights are read where they lie in memory, so
what has become wrong with them shows. Both have a small KV cache beside that of the requests.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator

from novacron.config.cache import CacheConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.mapped_reference import MappedReference
from novacron.executor.teacher_forcing import TeacherForcing
from novacron.models.decoder import Decoder
from novacron.quality.document import Document, DocumentScores
from novacron.quality.scoring import score_document
from novacron.quality.watch import QualityRecord, Turns
from novacron.records.output import WatchStats

_TOKENS_PER_PASS = 32  # a request that comes meanwhile waits for so many
_LONGEST_ANSWER = 4096  # tokens, its prompt included
_MOST_WAITING = 64

logger = logging.getLogger(__name__)


class QualityWatch:
    """Answers are offered to it, and time is. Not safe to share between threads: it computes with
    the kernels that serve."""

    def __init__(
        self,
        served: Blueprint,
        decoder: Decoder,
        reference: MappedReference,
        cache: CacheConfig,
        *,
        max_model_len: int,
        floor: float,
        turns: Turns | None = None,
    ) -> None:
        self.record = QualityRecord(floor)
        self._turns = turns or Turns()
        self._longest = min(max_model_len, _LONGEST_ANSWER)
        self._mapped = reference
        reference.decoder.set_context(max_model_len)
        self._variant = self._teacher(served, decoder, cache)
        self._reference = self._teacher(
            reference.blueprint, reference.decoder, CacheConfig(block_size=cache.block_size)
        )
        self._waiting: deque[Document] = deque()
        self._running: Iterator[DocumentScores | None] | None = None
        self._num_dropped = 0
        self._seconds = 0.0

    @property
    def has_work(self) -> bool:
        return self._running is not None or bool(self._waiting)

    def offer(self, answer: Document) -> None:
        """An answer to be scored in time. The oldest gives way where too many wait."""
        if len(answer.token_ids) > self._longest or answer.num_scored < 1:
            self._num_dropped += 1
            return
        self._waiting.append(answer)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._num_dropped += 1

    def work(self, *, is_idle: bool) -> bool:
        """Compute one pass, if there is something to compute and it is time to. Returns whether it
        did. `is_idle`: no request is there."""
        if not self.has_work or not self._turns.is_due(time.monotonic(), is_idle=is_idle):
            return False
        started_s = time.perf_counter()
        if self._running is None:
            self._running = self._score(self._waiting.popleft())
        scores = next(self._running)
        if scores is not None:
            self._running = None
            self._mapped.release()
            for alert in self.record.observe(scores):
                logger.warning("quality alert, %s: %s", self._variant.decoder.precision, alert)
        elapsed_s = time.perf_counter() - started_s
        self._seconds += elapsed_s
        self._turns.spent(elapsed_s)
        return True

    @property
    def num_scored(self) -> int:
        return self.record.num_scored

    def stats(self) -> WatchStats:
        return self.record.stats(self._num_dropped, self._seconds)

    def _teacher(
        self, blueprint: Blueprint, decoder: Decoder, cache: CacheConfig
    ) -> TeacherForcing:
        return TeacherForcing(
            blueprint, decoder, cache, longest=self._longest, max_tokens=_TOKENS_PER_PASS
        )

    def _score(self, answer: Document) -> Iterator[DocumentScores | None]:
        """None after each pass, then the scores."""
        hidden = []
        for teacher in (self._reference, self._variant):
            for finished in teacher.passes((answer,)):
                hidden += finished
                yield None
        reference, variant = self._reference, self._variant
        vocab_size = variant.decoder.config.vocab_size
        yield score_document(
            answer, vocab_size, reference.logits_of(hidden[0]), variant.logits_of(hidden[1])
        )
