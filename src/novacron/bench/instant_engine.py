"""InstantEngine: an engine that answers at once, and takes next to nothing for it.

For measuring what stands above engines. PacedEngine keeps books on blocks and time, which costs as
much as the parsing of a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from novacron.bench.paced_engine import PacedConfig, PacedEngine, token_at
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request

_NO_TIME = PacedConfig(prefill_s=0.0, row_s=0.0, step_s=0.0, restart_s=1.0, num_blocks=4096)


class InstantEngine(PacedEngine):
    """Each request ends with one output, that of all tokens it may have (one, if it names no
    number), once other work of the event loop has had its turn."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(_NO_TIME, tokenizer)

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        await asyncio.sleep(0)
        for index, request in enumerate(requests):
            self.num_calls += 1
            count = request.sampling.max_tokens or 1
            yield RequestOutput(
                request_id=request.request_id,
                index=index,
                token_ids=tuple(token_at(request, position) for position in range(count)),
                num_prompt_tokens=len(request.prompt_token_ids),
                num_output_tokens=count,
                finish_reason=FinishReason.LENGTH,
            )
