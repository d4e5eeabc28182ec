"""Calls whose prompts and answers are kept, of tenants that want it: as the client got them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from novacron.config.tenants import NOBODY, TenantPolicies
from novacron.engine.client import EngineClient
from novacron.gateway.calls import Call, Calls
from novacron.prompt_records.log import PromptLog
from novacron.prompt_records.record import PromptRecord
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason


class KeptCalls(Calls):
    """As `calls`, which run them and know them."""

    def __init__(
        self, calls: Calls, client: EngineClient, log: PromptLog, policies: TenantPolicies
    ) -> None:
        self._calls = calls
        self._client = client
        self._log = log
        self._policies = policies

    def __len__(self) -> int:
        return len(self._calls)

    async def cancel(self, some_id: str, tenant: str | None = None) -> int:
        return await self._calls.cancel(some_id, tenant)

    async def run(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        is_kept = self._policies.of(call.origin.caller.tenant).record_prompts
        pieces: list[list[str]] = [[] for _ in call.requests]
        outcome = "aborted"
        try:
            async with aclosing(self._calls.run(call)) as outputs:
                async for output in outputs:
                    if is_kept:
                        pieces[output.index].append(output.text)
                        if output.finish_reason is not None:
                            outcome = _outcome(output.finish_reason)
                    yield output
        except Exception:
            outcome = "failed"
            raise
        finally:
            if is_kept:
                self._keep(call, ["".join(one) for one in pieces], outcome)

    def _keep(self, call: Call, answers: list[str], outcome: str) -> None:
        ended_s, tokenizer, origin = time.time(), self._client.tokenizer, call.origin

        def make() -> PromptRecord:
            prompts = [tokenizer.decode(r.prompt_token_ids) for r in call.requests[:: call.n]]
            return PromptRecord(
                time=ended_s,
                tenant=origin.caller.tenant or NOBODY,
                user=origin.account.user_id,
                key_id=origin.account.key_id,
                request_id=origin.request_id,
                call_id=origin.call_id,
                model=origin.model,
                prompts=tuple(prompts),
                answers=tuple(answers),
                outcome=outcome,
            )

        self._log.keep(make)


def _outcome(reason: FinishReason) -> str:
    return "aborted" if reason is FinishReason.ABORT else "ok"
