"""The loop of the engine process: inbox -> EngineCore.step -> outbox."""

from __future__ import annotations

import time

import msgspec

from novacron.engine.answer_watch import AnswerWatch, NoWatch
from novacron.engine.core import EngineCore
from novacron.engine.mailbox import Mailbox
from novacron.engine.output_pacer import OutputPacer
from novacron.engine.pulse import Pulse
from novacron.engine.rank_news import RankNews
from novacron.executor.executor import BlocksLost
from novacron.quality.document import Document
from novacron.records import wire
from novacron.records.output import EngineOutput

_COMPILING_POLL_MS = 1
_WATCH_POLL_MS = 50
_NEWS_POLL_MS = 50
_RANKS_POLL_MS = 250


class MessageLoop:
    """Moves messages between the mailbox and the core."""

    def __init__(
        self,
        core: EngineCore,
        mailbox: Mailbox,
        pacer: OutputPacer,
        watch: NoWatch | AnswerWatch,
        pulse: Pulse,
        ranks: RankNews,
    ) -> None:
        self._core = core
        self._mailbox = mailbox
        self._pacer = pacer
        self._watch = watch
        self._pulse = pulse
        self._ranks = ranks
        self._is_scoring = False

    def run(self) -> None:
        """Until a Shutdown message."""
        self._core.take_block_news()
        self._send(())  # what lies in KV tiers from earlier
        progressed = True
        while True:
            self._pulse.rest()
            messages = self._mailbox.receive(self._patience_ms(progressed))
            self._pulse.move()
            for message in messages:
                match message:
                    case wire.Submit(requests):
                        for request in requests:
                            self._watch.begin(request)
                            self._core.add(request)
                        self._publish_all()  # the step that reads their prompts may be long
                    case wire.Abort(request_ids):
                        self._put(self._core.abort(request_ids))
                    case wire.Score(token_ids, first_scored):
                        self._watch.offer(Document(token_ids, first_scored))
                    case wire.Ask(number, order):
                        self._mailbox.send(wire.Answer(number, self._core.ask(order)))
                        self._send(())
                    case wire.Shutdown():
                        self._pacer.put(self._core.abort_all())
                        self._publish_all()
                        return
            num_steps = self._core.num_steps
            if self._core.has_work:
                self._put(self._core.step())
            progressed = self._core.num_steps != num_steps
            if progressed and self._core.has_work:
                self._publish(self._pacer.due(time.monotonic()))
            else:
                self._publish_all()  # the next step may be a long way off
            if not self._core.has_work or self._core.is_loading:
                self._restore_ranks()
            num_scored = self._watch.num_scored
            self._is_scoring = self._watch.work(is_idle=not self._core.has_work)
            has_news = not self._core.has_work and self._core.take_block_news()
            if has_news or self._watch.num_scored != num_scored or self._ranks.is_there:
                self._send(())  # which nobody would hear of before the next request

    def _restore_ranks(self) -> None:
        try:
            self._ranks.restore()
        except BlocksLost:
            self._core.lose_blocks()

    def _patience_ms(self, progressed: bool) -> int | None:
        """How long to wait for messages: not at all while steps compute something."""
        if not self._core.has_work:
            if not self._watch.has_work:
                if self._core.awaits_block_news:
                    return _NEWS_POLL_MS
                return _RANKS_POLL_MS if self._ranks.can_come else None
            return 0 if self._is_scoring else _WATCH_POLL_MS
        return 0 if progressed or self._core.is_loading else _COMPILING_POLL_MS

    def _put(self, outputs: list[EngineOutput]) -> None:
        self._watch.follow(outputs)
        self._pacer.put(outputs)

    def _publish_all(self) -> None:
        self._publish(self._pacer.flush(time.monotonic()))

    def _publish(self, outputs: list[EngineOutput]) -> None:
        if outputs:
            self._send(tuple(outputs))

    def _send(self, outputs: tuple[EngineOutput, ...]) -> None:
        stats = msgspec.structs.replace(self._core.stats(), watch=self._watch.stats())
        stats = self._ranks.told_in(stats)
        self._mailbox.send(wire.Outputs(outputs, stats))
        self._ranks.see_told(stats)
