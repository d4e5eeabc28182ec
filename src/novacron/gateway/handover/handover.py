"""Handover: streams that outlive the coordinator which began them.

Who attaches to a stream gets it from here, if it runs here; from the coordinator that runs it; or,
if that has ended, from here again, where it goes on from its record. A reader that was passed on to
another coordinator is passed on again when that one ends, without noticing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from novacron.cluster.same_model import identity
from novacron.coordination.lease import Fence
from novacron.coordination.seat import Duty, Seat
from novacron.coordination.shared_state import StreamRows
from novacron.coordination.stream_journal import StreamJournal
from novacron.coordination.streams import (
    Claim,
    StreamRow,
    StreamStart,
    StreamState,
    TakenStream,
    key_of,
    may_claim,
)
from novacron.engine.client import EngineState
from novacron.errors import NotReady, NovaCronError, RequestNotFound, StreamMoved
from novacron.gateway.calls import CallOrigin
from novacron.gateway.handover import request as requests
from novacron.gateway.handover.forwarding import Credentials, PeerLost
from novacron.gateway.handover.recorded import Recorded, prompt_digest
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.replies import NativeCall
from novacron.gateway.native.streams import Asked, Events
from novacron.gateway.replay import StreamId
from novacron.gateway.service import Service

logger = logging.getLogger(__name__)

_SEED_BITS: Final = 63
_ORPHANS_EVERY_S: Final = 1.0
_FORGET_EVERY_S: Final = 30.0
_MOST_MOVES: Final = 20  # of one reader; then something is wrong
_MOVING_S: Final = 0.1
_CLOSE_S: Final = 3.0


class OtherCoordinators(Protocol):
    """See peers.py, which brings an HTTP client along and is imported only where it is needed."""

    async def open(
        self, member_id: str, address: str, request_id: str, start: int, credentials: Credentials
    ) -> Events | None: ...

    async def cancel(
        self, member_id: str, address: str, request_id: str, credentials: Credentials
    ) -> bool: ...

    async def close(self) -> None: ...


def _as_it_is(key: str, request: bytes) -> bytes:
    """Where nothing is encrypted."""
    return request


@dataclass(frozen=True, kw_only=True)
class OpenedHandover:
    """The parts that stand outside the gateway. Made by cli/ from settings. `seal_request` makes of
    a request what is kept of it under its stream's key; it raises OSError if it cannot."""

    rows: StreamRows
    journal: StreamJournal
    peers: OtherCoordinators
    seal_request: Callable[[str, bytes], bytes] = _as_it_is


class Handover:
    """Implements Streams."""

    def __init__(
        self, opened: OpenedHandover, seat: Seat, service: Service, generations: Generations
    ) -> None:
        self._rows = opened.rows
        self._journal = opened.journal
        self._peers = opened.peers
        self._seal_request = opened.seal_request
        self._seat = seat
        self._service = service
        self._generations = generations
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        keep_ms = round(1000 * service.config.replay_seconds)
        seat.add(
            Duty(name="orphans", every_s=_ORPHANS_EVERY_S, run=self._adopt_orphans),
            Duty(
                name="streams",
                every_s=_FORGET_EVERY_S,
                run=lambda fence: self._rows.forget(fence, keep_ms),
            ),
        )

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal.start()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.close(_CLOSE_S)
        await self._peers.close()

    def recorded(self, origin: CallOrigin, asked: Asked) -> CallOrigin:
        """Calls under guardians are not put on record: their verdicts are not in it. Nor are those
        that would have to be encrypted, and cannot be."""
        if self._service.guarding is not None:
            return origin
        variants = self._service.client.variants
        default = next((one.name for one in variants if one.is_default), "")
        variant = origin.variant or (default if len(variants) > 1 else "")
        origin = replace(origin, variant=variant)
        seed = secrets.randbits(_SEED_BITS)
        key = key_of(origin.request_id, origin.caller.tenant)
        try:
            request = self._seal_request(key, requests.record(origin, asked, seed, time.time()))
        except OSError as error:
            logger.warning("a stream is not put on record: there is no key for it: %s", error)
            return origin
        facts = StreamStart(
            key=key,
            is_background=asked.is_background,
            model=self._model(variant),
            prompt=b"",
            request=request,
        )
        stream = StreamId(origin.request_id, origin.caller.tenant)
        record = Recorded(
            self._journal,
            facts,
            seed,
            partial(self._generations.move, stream),
            must_have_it=asked.form == "native",
        )
        return replace(origin, record=record)

    async def attach(
        self, stream: StreamId, start: int, credentials: Credentials, *, is_forwarded: bool = False
    ) -> Events | None:
        if is_forwarded:
            return self._local(stream, start)
        reader = _Reader(stream, start, credentials)
        source = await self._source(reader)
        return None if source is None else self._follow(source, reader)

    def follow(self, source: Events, stream: StreamId, credentials: Credentials) -> Events:
        return self._follow(source, _Reader(stream, 0, credentials))

    async def is_known(self, stream: StreamId) -> bool:
        """Raises DatabaseUnavailable."""
        return self._generations.knows(stream) or await self._find(stream) is not None

    async def cancel(self, stream: StreamId, credentials: Credentials) -> bool:
        row = await self._find(stream)
        if row is None or row.state is not StreamState.RUNNING or row.owner == self._seat.member_id:
            return False
        member = self._seat.picture.members.get(row.owner)
        if member is not None and self._seat.picture.is_alive(row.owner):
            try:
                return await self._peers.cancel(
                    member.id, member.address, stream.request_id, credentials
                )
            except PeerLost as lost:
                logger.warning("a stream cannot be cancelled where it runs: %s", lost)
        return False

    def _local(self, stream: StreamId, start: int) -> Events | None:
        if not self._generations.has_more(stream, start):
            return None
        return self._generations.events(stream, start)

    async def _source(self, reader: _Reader) -> Events | None:
        """Where the next events come from."""
        while True:
            if self._generations.knows(reader.stream):
                return self._local(reader.stream, reader.next_number)
            row = await self._find(reader.stream)
            if row is None:
                self._generations.has_more(reader.stream, 0)  # raises RequestNotFound
                raise RequestNotFound(f"No stream '{reader.stream.request_id}' is known.")
            if row.owner == self._seat.member_id:
                await self._settle(row, reader)
                continue
            picture = self._seat.picture
            lost = row.owner in reader.unreachable
            if may_claim(row, self._seat.member_id, picture, was_unreachable=lost):
                await self._take_over(row)
                continue
            member = picture.members[row.owner]
            try:
                return await self._peers.open(
                    member.id,
                    member.address,
                    reader.stream.request_id,
                    reader.next_number,
                    reader.credentials,
                )
            except PeerLost as error:
                logger.info("coordinator %s is lost: %s", member.address, error)
                reader.unreachable.add(row.owner)

    async def _follow(self, source: Events | None, reader: _Reader) -> Events:
        while source is not None:
            try:
                async with aclosing(source) as events:
                    async for event in events:
                        reader.next_number = event.number + 1
                        yield event
                return
            except PeerLost as lost:
                logger.info("a coordinator was lost in the middle of a stream: %s", lost)
            except StreamMoved:
                reader.count_move()
                await asyncio.sleep(_MOVING_S)
            source = await self._source(reader)

    async def _settle(self, row: StreamRow, reader: _Reader) -> None:
        """A stream of ours that is not here: it comes or goes just now, or has expired. Raises
        RequestNotFound."""
        if row.key in self._locks:
            async with self._locks[row.key]:
                return
        if row.state is not StreamState.RUNNING:
            raise RequestNotFound(f"The stream '{reader.stream.request_id}' ended too long ago.")
        reader.count_move()
        await asyncio.sleep(_MOVING_S)

    async def _take_over(self, row: StreamRow) -> None:
        """Go on with a stream here, unless somebody else was quicker. Raises NotReady."""
        if self._service.client.state is not EngineState.READY:
            raise NotReady("The engine of this server is not ready to go on with the stream.")
        if row.model not in map(self._model, self._variants()):
            raise _other_model()
        try:
            async with self._locks[row.key]:
                await self._claim(row)
        finally:
            self._locks.pop(row.key, None)

    async def _claim(self, row: StreamRow) -> None:
        claim = Claim(self._seat.member_id, row.owner, row.epoch)
        began_s = time.monotonic()
        taken = await asyncio.to_thread(self._rows.claim, row.key, claim)
        if taken is None:
            return
        try:
            call = await asyncio.to_thread(self._call_of, taken)
        except BaseException:
            self._release(taken)
            raise
        self._generations.start(call)
        logger.info(
            "stream %s goes on here, from %d chunks of its record; claimed in %.0f ms",
            call.request_id,
            len(taken.chunks),
            1000 * (time.monotonic() - began_s),
        )

    def _call_of(self, taken: TakenStream) -> NativeCall:
        """In a thread. Raises NotReady where it would not be the same call."""
        start = taken.start
        recorded = requests.read(start.request)
        arrival_time_s = time.monotonic() - max(0.0, time.time() - recorded.arrival_s)

        on_lost = partial(self._generations.move, StreamId(recorded.request_id, recorded.tenant))
        record = Recorded(self._journal, start, recorded.seed, on_lost, taken)
        context_length = self._service.spec_of(recorded.variant).max_model_len
        call = requests.call_of(
            recorded, self._service.client.tokenizer, context_length, arrival_time_s, record
        )
        digest = prompt_digest(call.call, recorded.seed)
        if start.model != self._model(recorded.variant) or start.prompt != digest:
            raise _other_model()
        return call

    def _release(self, taken: TakenStream) -> None:
        """For a server that can."""
        record = Recorded(self._journal, taken.start, 0, lambda: None, taken)
        record.begin()
        record.fail(NotReady("It cannot be made again here."))

    def _adopt_orphans(self, fence: Fence) -> None:
        """In the thread of duties."""
        for key in self._rows.orphans(fence):
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._adopt, key)

    def _adopt(self, key: str) -> None:
        task = asyncio.create_task(self._adopt_one(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt_one(self, key: str) -> None:
        try:
            row = await asyncio.to_thread(self._rows.find, key)
            picture, own_id = self._seat.picture, self._seat.member_id
            if row is not None and may_claim(row, own_id, picture, was_unreachable=False):
                await self._take_over(row)
        except NovaCronError as error:
            logger.warning("a stream without a coordinator does not go on here: %s", error)
        except Exception:
            logger.exception("a stream without a coordinator failed by a bug")

    async def _find(self, stream: StreamId) -> StreamRow | None:
        key = key_of(stream.request_id, stream.tenant)
        return await asyncio.to_thread(self._rows.find, key)

    def _model(self, variant: str) -> str:
        return identity(self._service.spec_of(variant))

    def _variants(self) -> list[str]:
        """Those that are loaded."""
        return ["", *(one.name for one in self._service.client.variants if one.spec is not None)]


def _other_model() -> NotReady:
    return NotReady(
        "This server has another model, or other settings of it, than the one that began this "
        "stream: it cannot go on with exactly the same tokens."
    )


class _Reader:
    """Who reads a stream, and from where on he still has to be told."""

    def __init__(self, stream: StreamId, start: int, credentials: Credentials) -> None:
        self.stream = stream
        self.next_number = start
        self.credentials = credentials
        self.unreachable: set[str] = set()
        self._num_moves = 0

    def count_move(self) -> None:
        """Raises StreamMoved if it was passed on too often: he may come again."""
        self._num_moves += 1
        if self._num_moves > _MOST_MOVES:
            raise StreamMoved
