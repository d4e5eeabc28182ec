"""The served model, as guardians ask it: behind everybody else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final
from uuid import uuid4

import msgspec

from novacron.engine.client import EngineClient
from novacron.errors import RequestFailed
from novacron.gateway.cache_scope import Caller, scope_of
from novacron.guardians.judge import Question
from novacron.records.output import RequestOutput
from novacron.records.request import (
    FinishReason,
    Pooling,
    Request,
    SamplingParams,
    StructuredOutput,
)

_LAST: Final = 2**31 - 1  # the priority that waits for all others


class OwnVoice:
    """Greedy answers and vectors of the model, beside the calls: they are in no metric of calls.
    What is cached of a prompt belongs to the tenant whose text it is."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    async def ask(self, question: Question) -> str:
        """Raises what EngineClient.generate raises, and RequestFailed."""
        messages = [{"role": "user", "content": question.text}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        tokenizer = self._client.tokenizer
        if tokenizer.has_chat_template:
            prompt = tokenizer.apply_chat_template(messages)
        else:
            prompt = tokenizer.encode(f"{question.system}\n\n{question.text}\nAnswer:")
        choices = msgspec.json.encode(question.choices).decode()
        sampling = SamplingParams(
            max_tokens=question.max_tokens,
            temperature=0.0,
            structured_output=StructuredOutput("choice", choices) if question.choices else None,
        )
        outputs = await self._run((self._request(prompt, sampling, question.tenant),))
        return "".join(output.text for output in outputs)

    async def embed(self, texts: Sequence[str], tenant: str) -> Sequence[Sequence[float]]:
        tokenizer, room = self._client.tokenizer, self._client.spec.max_model_len - 1
        sampling = SamplingParams(max_tokens=1)
        requests = tuple(
            self._request(tokenizer.encode(text)[:room], sampling, tenant, pooling="mean")
            for text in texts
        )
        vectors: dict[int, Sequence[float]] = {}
        for output in await self._run(requests):
            if output.embedding is not None:
                vectors[output.index] = output.embedding
        return [vectors[i] for i in range(len(texts))]

    async def _run(self, requests: tuple[Request, ...]) -> list[RequestOutput]:
        outputs = []
        async with aclosing(self._client.generate(requests)) as news:
            async for output in news:
                if output.finish_reason in (FinishReason.ERROR, FinishReason.ABORT):
                    raise RequestFailed(output.error or "The question was ended.")
                outputs.append(output)
        return outputs

    def _request(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        tenant: str,
        pooling: Pooling | None = None,
    ) -> Request:
        scope = scope_of(Caller(tenant), None, None)
        return Request(
            request_id=uuid4().hex,
            prompt_token_ids=tuple(prompt),
            sampling=sampling,
            arrival_time_s=time.monotonic(),
            priority=_LAST,
            tenant=tenant,
            cache_salt=scope.salt,
            cache_scope=scope.tag,
            pooling=pooling,
        )
