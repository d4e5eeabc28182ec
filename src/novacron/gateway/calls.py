"""Calls: API calls that run on the engine, each one or several Requests.

The one place where the gateway meets EngineClient.generate: every call is timed, can be found by
its id, and is aborted when whoever reads it stops.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from novacron.accounts.quota import Account
from novacron.engine.client import EngineClient
from novacron.errors import NovaCronError, RequestFailed
from novacron.gateway.auditing.access import Access
from novacron.gateway.cache_scope import EVERYONE, Caller
from novacron.gateway.cache_ticket import CacheTicket
from novacron.gateway.question import Question
from novacron.gateway.recording import UNRECORDED, Recording
from novacron.observability.call_timer import CallTimer
from novacron.observability.metrics import Metrics
from novacron.records.output import RequestOutput, TextLogprobs
from novacron.records.request import FinishReason, Request

if TYPE_CHECKING:  # imported only where there are guardians
    from novacron.gateway.call_guard import CallGuard

NOBODY_S: Final = Account("default")  # of servers that do not ask who calls


@dataclass(frozen=True, kw_only=True)
class CallOrigin:
    """Who calls: ids, the model, and when.

    `created` is Unix time, for the client; `arrival_time_s` is time.monotonic(), for us. `model` is
    the name as the client wrote it, with the variant where several are loaded. `warnings` are
    wishes that the variant does not meet, in sentences. `account` pays, where calls are counted;
    `rate_limits` is filled with where it stands then. `nonce` is what ids within an answer are made
    of, for whoever tells it again. `guard` and `fallbacks` are those of a server with guardians or
    specialists, once they have seen the body.
    """

    call_id: str  # what the client sees as the id of its answer
    request_id: str  # what it sent as x-request-id, or was given
    model: str
    created: int
    arrival_time_s: float
    variant: str = ""  # which one computes; empty: the engine's default
    warnings: tuple[str, ...] = ()
    caller: Caller = EVERYONE
    account: Account = NOBODY_S
    rate_limits: dict[str, str] = field(default_factory=dict)
    nonce: str = field(default_factory=partial(token_hex, 12))
    guard: CallGuard | None = None
    fallbacks: tuple[Fallback, ...] = ()
    access: Access | None = None  # where inference is audited: by which route it came
    cache: CacheTicket | None = None  # what it wants of the response cache; None: nothing
    record: Recording = UNRECORDED  # where other coordinators can go on with it


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One API call in the engine's terms: for each prompt in turn, its `n` Requests."""

    origin: CallOrigin
    requests: tuple[Request, ...]
    n: int = 1
    question: Callable[[], Question | None] = lambda: None  # of a chat: its last message

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts; the copies of a prompt count once."""
        return sum(len(request.prompt_token_ids) for request in self.requests[:: self.n])


Generate = Callable[[Call], AsyncGenerator[RequestOutput, None]]


def engine_outputs(client: EngineClient) -> Generate:
    """Calls as the engine computes them."""
    return lambda call: client.generate(call.requests)


class Calls:
    """The running calls of one engine. `generate` computes them: by default as they are."""

    def __init__(
        self, client: EngineClient, metrics: Metrics, generate: Generate | None = None
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._generate = generate or engine_outputs(client)
        self._running: set[Call] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of `call`; closing the generator aborts what still runs.

        Raises what `generate` raises, and RequestFailed for a request that the engine
        could not compute.
        """
        timer = CallTimer(self._metrics, call.origin.arrival_time_s, len(call.requests))
        self._running.add(call)
        try:
            async with aclosing(self._generate(call)) as outputs:
                async for output in outputs:
                    timer.observe(output)
                    if output.finish_reason is FinishReason.ERROR:
                        raise RequestFailed(output.error or "The engine gave no reason.")
                    yield output
        except NovaCronError as error:
            timer.fail(error)
            raise
        finally:
            self._running.discard(call)

    async def cancel(self, some_id: str, tenant: str | None = None) -> int:
        """End the calls that have this id (of the answer or of the request) with ABORT; how many.

        Only those of `tenant`, if one is given. Their readers get a last output as for any other
        end.
        """
        calls = [
            call
            for call in self._running
            if some_id in (call.origin.call_id, call.origin.request_id)
            and tenant in (None, call.origin.caller.tenant)
        ]
        for call in calls:
            for request in call.requests:
                await self._client.abort(request.request_id)
        return len(calls)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fallback:
    """One further way to answer a call. `make_call` asks guardians and makes tokens only when it is
    needed. `on_error` and `on_block`: of what went wrong before."""

    specialist: str
    make_call: Callable[[], Awaitable[Call]]
    on_error: bool
    on_block: bool


@dataclass
class Choice:
    """All that one Request of a call has brought."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TextLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TextLogprobs] = field(default_factory=list)
    embedding: tuple[float, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add(self, output: RequestOutput) -> None:
        self.texts.append(output.text)
        self.logprobs.extend(output.logprobs)
        self.prompt_logprobs.extend(filter(None, output.prompt_logprobs))
        self.embedding = output.embedding or self.embedding
        self.finish_reason = output.finish_reason
        self.stop_reason = output.stop_reason
        self.num_prompt_tokens = output.num_prompt_tokens
        self.num_output_tokens = output.num_output_tokens
        self.num_cached_tokens = output.num_cached_tokens

    def as_output(self, call: Call, index: int) -> RequestOutput:
        """All of it at once, as if it had come in one piece."""
        return RequestOutput(
            request_id=call.requests[index].request_id,
            index=index,
            text=self.text,
            logprobs=tuple(self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            num_prompt_tokens=len(call.requests[index].prompt_token_ids),
            num_output_tokens=self.num_output_tokens,
            num_cached_tokens=self.num_cached_tokens,
        )


async def collect(
    call: Call,
    outputs: AsyncGenerator[RequestOutput, None],
    observe: Callable[[RequestOutput], None] = lambda output: None,
) -> tuple[Choice, ...]:
    """Read `outputs` to the end; one Choice per Request of the call."""
    choices = tuple(Choice() for _ in call.requests)
    async with aclosing(outputs):
        async for output in outputs:
            observe(output)
            choices[output.index].add(output)
    return choices
