"""RecoveringClient: calls that outlive the engine they run on.

Stands over any other EngineClient. When an engine dies under a call, the call waits until there is
one again (the same one restarted, or another replica), is given to it with the tokens it has, and
goes on: whoever reads it sees a pause. A Journal knows what to go on with, Suspects who must not.
Meanwhile nothing is refused that would have been accepted a moment earlier: new calls wait, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec

from novacron import errors
from novacron.engine.client import (
    DrainOptions,
    EngineClient,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
)
from novacron.engine.journal import Journal
from novacron.engine.recovering_call import RecoveringCall, fixed
from novacron.engine.request_streams import id_in_use
from novacron.engine.suspects import Suspects
from novacron.engine.tokenization import Tokenizer
from novacron.engine.waiting_room import WaitingRoom
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import Request

logger = logging.getLogger(__name__)


class StartedClient(EngineClient, Protocol):
    """A client whose engine process is on its way; `start` takes charge of it."""

    async def start(self) -> None: ...


class RecoveringClient:
    """Implements EngineClient over `client`.

    A call waits at most `timeout_s` at a time for an engine; 0: it fails with the engine, as if
    this class were not there. At most `most_waiting` requests wait. Requests that bring no seed get
    one drawn from `seed`.

    It drains by itself: the client below, which does not replace an engine that dies while it
    drains, is only told once all that was accepted has ended, through any number of deaths.
    """

    def __init__(
        self,
        client: StartedClient,
        *,
        timeout_s: float,
        most_waiting: int,
        seed: int | None = 0,
        regions_of: Callable[[str], tuple[str, ...]] | None = None,
    ) -> None:
        """`regions_of` tells where requests of a tenant may be; None: all of them anywhere."""
        self._regions_of = regions_of
        self._client = client
        self._timeout_s = timeout_s
        self._most_waiting = most_waiting
        self._seeds = random.Random(seed)
        self._suspects = Suspects()
        self._room = WaitingRoom(client, self._suspects, timeout_s)
        self._calls: dict[str, RecoveringCall] = {}  # by the ids of their requests
        self._num_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._changing = asyncio.Lock()  # held by load and unload
        self._is_draining = False
        self._is_restarting = False  # it was ready, and nobody has ended it
        self._state_below = self._state_told = client.state
        self._callbacks: list[Callable[[EngineState], None]] = []
        client.on_state_change(self._see_state)

    @property
    def state(self) -> EngineState:
        state = self._client.state
        is_up = state in (EngineState.READY, EngineState.LOADING)
        return EngineState.DRAINING if self._is_draining and is_up else state

    @property
    def loading_progress(self) -> tuple[str, float]:
        return self._client.loading_progress

    @property
    def spec(self) -> ModelSpec:
        return self._client.spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._client.tokenizer

    @property
    def stats(self) -> EngineStats:
        """Requests that wait here for an engine count as waiting."""
        stats, num_here = self._client.stats, self._room.num_requests
        if not num_here:
            return stats
        return msgspec.structs.replace(stats, num_waiting=stats.num_waiting + num_here)

    @property
    def num_restarts(self) -> int:
        return self._client.num_restarts

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        return self._client.variants

    @property
    def engine_pid(self) -> int | None:
        return self._client.engine_pid

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return self._client.replicas

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return self._client.nodes

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    async def start(self) -> None:
        await self._client.start()

    async def wait_ready(self) -> None:
        await self._client.wait_ready()
        if self._is_draining:
            raise _finishing()

    def _with_regions(self, requests: tuple[Request, ...]) -> tuple[Request, ...]:
        """Every request passes here: calls, and those that guardians and caches make beside."""
        if self._regions_of is None:
            return requests
        return tuple(
            msgspec.structs.replace(one, regions=self._regions_of(one.tenant)) for one in requests
        )

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        call = self._open(self._with_regions(requests))
        try:
            while call.goes_on:
                if call.was_accepted or self._is_restarting or self._suspects.is_anyone:
                    await self._room.wait(call)
                if call.has_aborted:
                    for output in call.take_aborted():
                        yield output
                    continue
                try:
                    if self._suspects.is_suspect(call.name):
                        for output in await self._try(call):
                            if not call.journal.is_over(output):
                                yield call.record(output)
                        continue
                    self._suspects.start(call.name)
                    life = self._client.generate(call.begin_life())
                    async with aclosing(life) as outputs:
                        async for output in outputs:
                            yield call.record(output)
                except errors.NovaCronError as error:
                    self._see_end_of_life(call, error)
                    await asyncio.sleep(call.backoff_s)
        finally:
            self._close(call)

    async def abort(self, request_id: str) -> bool:
        call = self._calls.get(request_id)
        if call is None:
            return False
        if call.is_waiting:
            was_live = call.abort_now(request_id)
            self._room.tell()
            return was_live
        running_id = call.journal.id_in_engine(request_id)
        if running_id is not None and await self._client.abort(running_id):
            return True
        call.abort_later(request_id)  # it has ended, or its engine, and we have not heard of it
        return False

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        return await self._client.ask(order, variant)

    async def drain(self, timeout_s: float) -> bool:
        self._is_draining = True
        self._see_state(self._state_below)
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            await self._client.drain(0)
            return False
        return await self._client.drain(timeout_s)

    async def unload(self, timeout_s: float) -> None:
        async with self._changing:
            if self._client.state is EngineState.READY or self._is_restarting:
                await self.drain(timeout_s)
            await self._client.unload(0)
            self._is_draining = False

    async def load(self) -> None:
        async with self._changing:
            await self._client.load()

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        """What did not end in time goes on elsewhere."""
        return await self._client.drain_replica(replica_id, timeout_s, options)

    async def resume_replica(self, replica_id: str) -> None:
        await self._client.resume_replica(replica_id)

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        """What did not end in time goes on elsewhere."""
        return await self._client.scale(num_replicas, timeout_s)

    async def close(self) -> None:
        await self._client.close()

    def _open(self, requests: tuple[Request, ...]) -> RecoveringCall:
        """Raises NotReady, Overloaded and InvalidRequest, which keep it from being accepted."""
        if self._is_draining:
            raise _finishing()
        for request in requests:
            if request.request_id in self._calls:
                raise id_in_use(request.request_id)
        if self._room.num_requests + len(requests) > self._most_waiting:
            raise errors.Overloaded(
                f"The queue is full: {self._room.num_requests} requests wait for the engine to "
                "come back. Try again later, or raise max_queued_requests."
            )
        variants = self._client.variants
        default = next((one.name for one in variants if one.is_default), "")
        variant = (requests[0].variant or default) if len(variants) > 1 else ""
        journal = Journal(fixed(requests, self._seeds, variant))
        call = RecoveringCall(str(self._num_calls), variant, journal)
        self._num_calls += 1
        self._calls |= dict.fromkeys((request.request_id for request in requests), call)
        self._idle.clear()
        return call

    def _close(self, call: RecoveringCall) -> None:
        for request_id in call.journal.request_ids:
            self._calls.pop(request_id, None)
        if not self._calls:
            self._idle.set()
        self._forget_suspicion(call)

    async def _try(self, call: RecoveringCall) -> list[RequestOutput]:
        """Run a suspect until it is cleared. It does not wait for its reader: others wait for it.
        What it had got before a death is not told, and comes again."""
        logger.info("a request under which engines have died twice is tried alone")
        outputs: list[RequestOutput] = []
        self._suspects.start(call.name)
        tokens = call.trial_tokens = dict(call.journal.num_tokens)
        async with aclosing(self._client.generate(call.begin_life())) as running:
            async for output in running:
                outputs.append(output)
                request_id = call.journal.original_id(output)
                tokens[request_id] += len(output.token_ids)
                if output.finished:
                    del tokens[request_id]
                if self._suspects.is_cleared_by(call.name, tokens):
                    break
        call.end_trial()
        self._forget_suspicion(call)
        return outputs

    def _see_end_of_life(self, call: RecoveringCall, error: errors.NovaCronError) -> None:
        """Note why a life of the call has ended early. Raises `error` if it is to have no other."""
        is_up = self._client.state in (EngineState.READY, EngineState.LOADING)
        is_lost = isinstance(error, errors.EngineDead)
        is_refused = isinstance(error, errors.NotReady | errors.Overloaded)
        may_wait = is_lost or (is_refused and (call.was_accepted or self._is_restarting))
        if not (self._timeout_s and is_up and may_wait):
            raise error
        if isinstance(error, errors.EngineDead) and error.has_run:
            tokens = call.see_death(error)
            if not error.was_cut_off:  # which no request does
                self._suspects.see_death(
                    call.name,
                    tokens,
                    was_killed=error.was_killed,
                    may_be_withdrawn=error.has_lost_a_rank,
                )
        else:
            call.see_refusal(error)

    def _forget_suspicion(self, call: RecoveringCall) -> None:
        if self._suspects.forget(call.name):
            self._room.tell()

    def _see_state(self, state: EngineState) -> None:
        if state is EngineState.LOADING:
            self._is_restarting |= self._state_below is EngineState.READY
        else:
            self._is_restarting = False
        if state is EngineState.READY and not self._client.spec.follows_a_crash:
            self._suspects.withdraw()
        self._state_below = state
        self._room.tell()
        if self.state is not self._state_told:
            self._state_told = self.state
            for callback in self._callbacks:
                callback(self._state_told)


def _finishing() -> errors.NotReady:
    return errors.NotReady("The server is finishing its work before it ends.", 5.0)
