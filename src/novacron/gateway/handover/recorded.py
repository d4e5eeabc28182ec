"""Recorded: a native call whose stream is on record, begun here or by another coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import blake3
import msgspec

from novacron.accounts.posting import Entry
from novacron.coordination.stream_journal import OpenStream, StreamJournal
from novacron.coordination.streams import StreamStart, StreamState, TakenStream
from novacron.coordination.told import decode
from novacron.engine.admission import with_seed
from novacron.engine.client import EngineClient
from novacron.engine.journal import Journal
from novacron.errors import EngineDead, NotReady, NovaCronError, Overloaded, RequestFailed
from novacron.gateway.calls import Call
from novacron.gateway.handover.single_tokens import SingleTokens
from novacron.records.output import RequestOutput
from novacron.records.request import Request

MOST_AHEAD: Final = 32  # outputs that readers may have before the record has them
_FIRST_EPOCH: Final = 1
_DIGEST_BYTES: Final = 16


def prompt_digest(call: Call, seed: int) -> bytes:
    """Of the tokens of all prompts: whether they were made of a request in the same way. With the
    stream's own seed, which nobody is told: no guess at a prompt can be tried on it."""
    digest = blake3.blake3(seed.to_bytes(8, "little"))
    for request in call.requests[:: call.n]:
        digest.update(msgspec.msgpack.encode(request.prompt_token_ids))
    return digest.digest(_DIGEST_BYTES)


class Recorded:
    """Implements Recording. `facts` are all of a StreamStart but the prompt; `seed` is that of
    requests which bring none. `on_lost`: another coordinator has gone on with it. `taken`: it goes
    on with this. `must_have_it`: it does not run without a record of its own."""

    def __init__(
        self,
        journal: StreamJournal,
        facts: StreamStart,
        seed: int,
        on_lost: Callable[[], None],
        taken: TakenStream | None = None,
        *,
        must_have_it: bool = True,
    ) -> None:
        self.entry = None if taken is None else msgspec.msgpack.decode(taken.entry, type=Entry)
        self._facts = facts
        self._seed = seed
        self._taken = taken
        self._journal = journal
        self._stream = OpenStream(
            facts.key,
            _FIRST_EPOCH if taken is None else taken.epoch,
            0 if taken is None else len(taken.chunks),
            self._lose,
        )
        self._begun = asyncio.Event()
        self._num_known = 0  # outputs that the record has from others, yet to be told here
        self._num_requests = 1
        self._has_told = taken is not None
        self._is_over = taken is not None and taken.state is not StreamState.RUNNING
        self._on_lost = on_lost
        self._may_go_without = not must_have_it
        self._goes_without = False

    def start_of(self, call: Call) -> StreamStart | None:
        if self._goes_without:
            return None
        return msgspec.structs.replace(self._facts, prompt=prompt_digest(call, self._seed))

    def go_without(self) -> bool:
        self._goes_without = self._may_go_without
        return self._goes_without

    def begin(self) -> None:
        if not self._goes_without:
            self._begun.set()

    async def until_begun(self) -> None:
        await self._begun.wait()

    async def outputs(
        self, client: EngineClient, requests: tuple[Request, ...]
    ) -> AsyncGenerator[RequestOutput, None]:
        seeds = random.Random(self._seed)
        requests = tuple(with_seed(request, seeds) for request in requests)
        self._num_requests = len(requests)
        outputs = (
            client.generate(requests)
            if self._taken is None
            else self._go_on(client, requests, self._taken)
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    async def tell(self, output: RequestOutput) -> None:
        if self._num_known > 0:
            self._num_known -= 1
            return
        if not self._begun.is_set() or self._is_over:
            return
        self._has_told = True
        self._journal.note(self._stream, output)
        if not self._is_foreseeable(output) or self._stream.num_unwritten > MOST_AHEAD:
            await self._journal.written(self._stream)

    def end(self) -> None:
        self._end(StreamState.ENDED)

    def fail(self, error: NovaCronError) -> bool:
        """One that has told nothing yet is refused, and its caller knows: nothing is kept."""
        may_go_on = isinstance(error, EngineDead | NotReady | Overloaded) and self._has_told
        if may_go_on:
            self._end(None, is_released=True)
        elif self._has_told:
            self._end(StreamState.FAILED, error=str(error))
        else:
            self._end(None)
        return may_go_on

    def leave(self) -> None:
        """Its row goes with it."""
        self._end(None)

    def _end(
        self, state: StreamState | None, *, error: str = "", is_released: bool = False
    ) -> None:
        if self._begun.is_set() and not self._is_over:
            self._is_over = True
            self._journal.end(self._stream, state, error=error, is_released=is_released)

    def _is_foreseeable(self, output: RequestOutput) -> bool:
        """Whether who goes on with the stream tells the same next, in the same pieces: of one
        request, one token. Which of several comes first depends on the time."""
        return self._num_requests == 1 and len(output.token_ids) == 1

    def _lose(self) -> None:
        self._is_over = True
        self._on_lost()

    async def _go_on(
        self, client: EngineClient, requests: tuple[Request, ...], taken: TakenStream
    ) -> AsyncGenerator[RequestOutput, None]:
        """What was told before, and then what an engine makes of it."""
        known = decode(taken.chunks, requests)
        self._num_known = len(known)
        journal = Journal(requests)
        journal.remaining()
        running = dict(enumerate(requests))
        for output in known:
            if output.finished:
                running.pop(output.index, None)
            yield journal.record(output)
        if taken.state is StreamState.FAILED:
            raise RequestFailed(taken.error)
        if not running:
            return
        continued = tuple(
            msgspec.structs.replace(one, request_id=original.request_id)  # to be found when aborted
            for one, original in zip(journal.remaining(), running.values(), strict=True)
        )
        cutter = SingleTokens(
            client.tokenizer, continued[0], 0, MOST_AHEAD + 1 if len(requests) == 1 else 0
        )
        async with aclosing(client.generate(continued)) as outputs:
            async for output in outputs:
                for piece in cutter.cut(journal.record(output)):
                    yield piece
