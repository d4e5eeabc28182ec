"""Calls counted: reserved in the ledger before they run, settled with what they took.

Nothing runs without a reservation, and every reservation is settled, however the call ends. What
its caller was sent is what counts; of a call that was cut off before it brought anything, its
prompt.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec
from starlette.types import Scope

from novacron.accounts.posting import Entry, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.config.key_shares import PRIORITIES
from novacron.coordination.streams import StreamStart
from novacron.engine.client import EngineClient
from novacron.errors import NovaCronError, QuotaExceeded, StreamIdInUse
from novacron.gateway.calls import NOBODY_S, Call
from novacron.gateway.identity.principal import principal_of
from novacron.gateway.served_model import ServedModel
from novacron.records.output import RequestOutput
from novacron.records.request import Request


class Reservations(Protocol):
    """The ledger, as calls see it: accounts.ledger.Ledger."""

    async def reserve(
        self, account: Account, wish: Wish, stream: StreamStart | None = None
    ) -> Entry: ...

    def settle(self, id: str, account: Account, usage: Usage | None) -> None: ...


class Metering:
    """Runs calls on `client` for those who have room for them in `ledger`."""

    def __init__(self, client: EngineClient, model: ServedModel, ledger: Reservations) -> None:
        self._client = client
        self._model = model
        self._ledger = ledger

    async def generate(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        """Raises what EngineClient.generate and Ledger.reserve raise."""
        origin = call.origin
        record = origin.record
        try:
            entry = record.entry or await self._reserve(call)
        except QuotaExceeded as error:
            origin.rate_limits.update(error.rate_limits)
            raise
        record.begin()
        origin.rate_limits.update(entry.rate_limits)
        count = CallCount(call)
        try:
            async with aclosing(record.outputs(self._client, _limited(call, entry))) as outputs:
                async for output in outputs:
                    count.see(output)
                    yield output
        except NovaCronError:
            count.was_refused = True
            raise
        finally:
            self._ledger.settle(entry.id, origin.account, count.usage())

    async def _reserve(self, call: Call) -> Entry:
        account, wish, record = call.origin.account, self._wish(call), call.origin.record
        try:
            return await self._ledger.reserve(account, wish, record.start_of(call))
        except StreamIdInUse:
            if not record.go_without():
                raise
        return await self._ledger.reserve(account, wish)

    def _wish(self, call: Call) -> Wish:
        variant = self._model.variant(call.origin.variant)
        return Wish(
            prompts=tuple(len(request.prompt_token_ids) for request in call.requests),
            answers=tuple(_longest_answer(request) for request in call.requests),
            n=call.n,
            model=self._model.name,
            model_len=(variant.spec or self._client.spec).max_model_len,
            variant=variant.name,
        )


class CallCount:
    """What a call has brought so far. `num_open` of its requests have not ended."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._newest: list[RequestOutput | None] = [None] * len(call.requests)
        self.num_open = len(call.requests)
        self.was_refused = False

    def see(self, output: RequestOutput) -> None:
        self._newest[output.index] = output
        self.num_open -= output.finished

    def usage(self) -> Usage | None:
        """None, if the engine did not take the call on."""
        brought = [output for output in self._newest if output is not None]
        if self.was_refused and not brought:
            return None
        firsts = self._newest[:: self._call.n]
        return Usage(
            prompt_tokens=self._call.num_prompt_tokens,
            cached_tokens=sum(one.num_cached_tokens for one in firsts if one is not None),
            output_tokens=sum(output.num_output_tokens for output in brought),
        )


def _longest_answer(request: Request) -> int | None:
    return 0 if request.pooling is not None else request.sampling.max_tokens


def _limited(call: Call, entry: Entry) -> tuple[Request, ...]:
    """Answers of no named length end where the reservation does; no request is more urgent than
    the quota lets it be."""
    floor = None if entry.priority is None else PRIORITIES[entry.priority]
    return tuple(
        _limited_request(request, longest, floor)
        for request, longest in zip(call.requests, entry.answers, strict=True)
    )


def _limited_request(request: Request, longest: int, floor: int | None) -> Request:
    if _longest_answer(request) is None:
        sampling = msgspec.structs.replace(request.sampling, max_tokens=longest)
        request = msgspec.structs.replace(request, sampling=sampling)
    if floor is not None and request.priority < floor:
        request = msgspec.structs.replace(request, priority=floor)
    return request


def account_of(scope: Scope) -> Account:
    """Who pays for calls of this request."""
    payer = principal_of(scope)
    if payer is None:
        return NOBODY_S
    return Account(payer.tenant_id or NOBODY_S.tenant_id, payer.user_id, payer.key_id)
