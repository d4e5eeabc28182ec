"""Chains of specialists: who answers where the first one could not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from novacron.errors import NovaCronError
from novacron.gateway.calls import Call
from novacron.observability.guardian_values import GuardianTotals
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason


async def answered_by(
    call: Call,
    run: Callable[[Call], AsyncGenerator[RequestOutput, None]],
    totals: GuardianTotals,
) -> AsyncGenerator[RequestOutput, None]:
    """The outputs of `call`, or of its first fallback that has an answer.

    Only before any text has gone out: an answer is never put together from two. The last one's
    error, or its end by a guardian, is the call's.
    """
    waiting = list(call.origin.fallbacks)
    while True:
        has_gone_out = False
        try:
            async with aclosing(run(call)) as outputs:
                async for output in outputs:
                    has_gone_out = has_gone_out or bool(output.text)
                    is_blocked = output.finish_reason is FinishReason.CONTENT_FILTER
                    if is_blocked and not has_gone_out and waiting and waiting[0].on_block:
                        break
                    has_gone_out = has_gone_out or output.finished
                    yield output
                else:
                    return
        except NovaCronError as error:
            if has_gone_out or not waiting or not (error.retryable and waiting[0].on_error):
                raise
        totals.fallbacks[call.origin.model] += 1
        call = await waiting.pop(0).make_call()
