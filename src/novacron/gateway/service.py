"""What all routes share: the engine, the model's names, the running calls, and how to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient, EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest, NovaCronError
from novacron.gateway.auditing.access import access_of
from novacron.gateway.cache_scope import Caller, caller_of
from novacron.gateway.cache_ticket import ticket_of
from novacron.gateway.calls import Call, CallOrigin, Calls, Choice, collect
from novacron.gateway.error_mapping import error_body
from novacron.gateway.identity.principal import principal_of
from novacron.gateway.metering import account_of
from novacron.gateway.middleware import request_id_of
from novacron.gateway.openai.responses import encode
from novacron.gateway.precision import NO_WISH, PrecisionWish, VariantChoice, choose_variant
from novacron.gateway.rate_limits import rate_limits_of
from novacron.gateway.response_caching import CachedCalls
from novacron.gateway.served_model import ServedModel
from novacron.gateway.streaming import (
    DONE,
    EventStreamResponse,
    StreamForm,
    frame,
    unless_disconnected,
)
from novacron.observability.metrics import Metrics
from novacron.observability.replica_values import ReplicaSnapshot
from novacron.observability.snapshots import EngineSnapshot, VariantSnapshot
from novacron.records.output import ModelSpec, RequestOutput

if TYPE_CHECKING:  # imported only where there are guardians
    from novacron.gateway.guarding import AnyBody, Guarding
    from novacron.gateway.openai.chat import ChatReply
    from novacron.gateway.openai.completions import CompletionReply

P = ParamSpec("P")
T = TypeVar("T")

_INLINE_BYTES = 16 * 1024  # parsed on the event loop; more would make other streams wait


class HasCall(Protocol):
    """A parsed body."""

    @property
    def call(self) -> Call: ...


class Reply(HasCall, Protocol):
    """A call, and its outputs in the words of one API, chunk by chunk."""

    def frames(self, output: RequestOutput) -> bytes: ...

    def last_frames(self) -> bytes: ...

    def twin(self) -> ChatReply | CompletionReply:
        """The same call in OpenAI's words, of which nothing has been told yet."""
        ...


@dataclass(frozen=True, kw_only=True)
class Service:
    """One engine, and everything around it that routes of all APIs use."""

    client: EngineClient
    config: ServerConfig
    model: ServedModel
    metrics: Metrics
    calls: Calls
    worker_pids: Callable[[], tuple[int, ...]]
    guarding: Guarding | None = None
    response_cache: CachedCalls | None = None
    audits_inference: bool = False

    def engine_snapshot(self) -> EngineSnapshot:
        client = self.client
        return EngineSnapshot(
            state=client.state.value,
            states=tuple(state.value for state in EngineState),
            stats=client.stats,
            spec=self.model.spec,
            num_restarts=client.num_restarts,
            variants=tuple(
                VariantSnapshot(
                    name=variant.name,
                    state=variant.state.value,
                    stats=variant.stats,
                    is_default=variant.is_default,
                    num_left=variant.num_left,
                )
                for variant in client.variants
            ),
            replicas=tuple(
                ReplicaSnapshot(
                    name=replica.replica_id,
                    state=replica.state.value,
                    epoch=replica.epoch,
                    stats=replica.stats,
                    queued_tokens=replica.queued_tokens,
                    num_routed=replica.num_routed,
                    expected_reuse_tokens=replica.expected_reuse_tokens,
                    found_reuse_tokens=replica.found_reuse_tokens,
                )
                for replica in client.replicas
            ),
        )

    def spec_of(self, variant: str) -> ModelSpec:
        """Facts about the variant that computes a call. Raises NotReady before it is loaded."""
        return self.model.variant(variant).spec or self.client.spec

    def origin(
        self,
        prefix: str,
        connection: HTTPConnection,
        model: str | None,
        request_id: str | None = None,
        wish: PrecisionWish = NO_WISH,
    ) -> CallOrigin:
        """Ids, model and variant of a call. Raises ModelNotFound.

        `request_id` is the one in the body, which goes before the header's. Either shows in the
        answer's id. A variant in the model's name goes before `wish`.
        """
        caller = self.caller(connection)
        base, named = self.model.resolve(model)
        choice = choose_variant(wish, self.client.variants)
        if named:
            choice = VariantChoice(named)
        return CallOrigin(
            call_id=prefix + (request_id or request_id_of(connection.scope)),
            request_id=request_id or request_id_of(connection.scope),
            model=self.model.answers_as(base, choice.variant),
            created=int(time.time()),
            arrival_time_s=time.monotonic(),
            variant=choice.variant,
            warnings=choice.warnings,
            caller=caller,
            account=account_of(connection.scope),
            rate_limits=rate_limits_of(connection.scope),
            access=access_of(connection.scope) if self.audits_inference else None,
            cache=ticket_of(connection) if self.response_cache else None,
        )

    async def admitted(
        self,
        connection: HTTPConnection,
        origin: CallOrigin,
        body: AnyBody,
        parse_one: Callable[[AnyBody, CallOrigin, Tokenizer], HasCall | Call],
    ) -> tuple[CallOrigin, AnyBody]:
        """What guardians and specialists make of a body, before it is parsed by `parse_one`.

        Raises ContentBlocked and GuardianUnavailable.
        """
        if self.guarding is None:
            return origin, body

        async def call_of(body: AnyBody, origin: CallOrigin) -> Call:
            parsed = await parse(connection, parse_one, body, origin, self.client.tokenizer)
            return parsed if isinstance(parsed, Call) else parsed.call

        return await self.guarding.admit(origin, body, call_of)

    def caller(self, connection: HTTPConnection) -> Caller:
        """Who calls, once that was checked."""
        return caller_of(principal_of(connection.scope))

    async def whole(
        self,
        request: Request,
        call: Call,
        observe: Callable[[RequestOutput], None] = lambda output: None,
    ) -> tuple[Choice, ...]:
        """Run the call to its end, or until the client goes away. `observe` sees all outputs."""
        return await unless_disconnected(request, collect(call, self.calls.run(call), observe))

    def stream(self, reply: Reply, form: StreamForm | None = None) -> Response:
        """Run the call of `reply`, and send its chunks as they come; `form` is OpenAI's unless
        given."""
        return self.stream_of(_frames(self.calls.run(reply.call), reply), form)

    def stream_of(
        self, frames: AsyncGenerator[bytes, None], form: StreamForm | None = None
    ) -> Response:
        """Send `frames` as they come."""
        form = form or OPENAI_STREAM
        return EventStreamResponse(
            frames,
            error_frame=form.error_frame,
            keep_alive_s=self.config.keep_alive_interval,
            keep_alive_frame=form.keep_alive_frame,
            media_type=form.media_type,
        )


async def parse(
    connection: HTTPConnection, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """`function(...)`, in a thread if what was sent is long: tokenizing a book takes a while."""
    announced = connection.headers.get("content-length", "")
    try:
        if announced.isdecimal() and int(announced) <= _INLINE_BYTES:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)
    except RecursionError as error:  # as deep as the body could just be read, but not written
        raise InvalidRequest("The body is nested too deeply.") from error


async def _frames(
    outputs: AsyncGenerator[RequestOutput, None], reply: Reply
) -> AsyncGenerator[bytes, None]:
    async with aclosing(outputs):
        async for output in outputs:
            if frames := reply.frames(output):
                yield frames
    yield reply.last_frames()


def _error_frame(error: NovaCronError) -> bytes:
    return frame(encode(error_body(error))) + DONE


OPENAI_STREAM = StreamForm(error_frame=_error_frame)
