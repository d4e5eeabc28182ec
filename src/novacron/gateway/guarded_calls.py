"""Calls under guardians: every answer passes them before anybody sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from novacron.engine.client import EngineClient
from novacron.errors import ContentBlocked, InvalidRequest
from novacron.gateway.call_guard import AnswerGuard, CallGuard
from novacron.gateway.calls import Call, CallOrigin, Calls, Generate
from novacron.gateway.fallbacks import answered_by
from novacron.observability.metrics import Metrics
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason


class GuardedCalls(Calls):
    """As Calls; with the answers that guardians let pass, from the first of a chain of specialists
    that has one. `late_guard` makes the guardians of a call whose route has asked none."""

    def __init__(
        self,
        client: EngineClient,
        metrics: Metrics,
        late_guard: Callable[[CallOrigin], CallGuard],
        generate: Generate | None = None,
    ) -> None:
        super().__init__(client, metrics, generate)
        self._make_guard = late_guard

    async def run(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        """Raises GuardianUnavailable, too; an answer that is blocked ends with CONTENT_FILTER."""
        outputs = answered_by(call, self._run_one, self._metrics.guardians)
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    async def _run_one(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        guard = call.origin.guard or await self._late_guard(call)
        if not guard.guardians:
            async with aclosing(super().run(call)) as outputs:
                async for output in outputs:
                    yield output
            return
        if guard.watches_answers and any(r.sampling.logprobs is not None for r in call.requests):
            raise InvalidRequest(
                "logprobs would show text that guardians of this server hold back. Leave them out.",
                param="logprobs",
            )
        answers = [guard.answer() for _ in call.requests]
        try:
            async with aclosing(super().run(call)) as outputs:
                async for output in outputs:
                    answer = answers[output.index]
                    if output.embedding is not None:
                        yield output
                    elif answer.blocked is None:
                        yield await self._passed(answer, output)
                    if any(one.blocked for one in answers) and all(one.is_over for one in answers):
                        return  # else whoever computes comes to his end, and may keep the answer
        finally:
            guard.observe(answers)

    async def _passed(self, answer: AnswerGuard, output: RequestOutput) -> RequestOutput:
        text = await answer.push(output.text, is_last=output.finished)
        if answer.blocked is None:
            return output if text == output.text else msgspec.structs.replace(output, text=text)
        if not output.finished:
            await self._client.abort(output.request_id)
        self._metrics.finished[FinishReason.CONTENT_FILTER.value] += 1
        return msgspec.structs.replace(
            output, text=text, finish_reason=FinishReason.CONTENT_FILTER, stop_reason=None
        )

    async def _late_guard(self, call: Call) -> CallGuard:
        """For a call of a route that has not asked the guardians: they judge its tokens as text.
        What would have to be masked is refused, since the prompt is made already."""
        guard = self._make_guard(call.origin)
        tokenizer = self._client.tokenizer
        texts = [tokenizer.decode(r.prompt_token_ids) for r in call.requests[:: call.n]]
        if await guard.admit(texts) != texts:
            raise ContentBlocked("mask", "this_endpoint_cannot_mask")
        return guard
