"""Grammars of requests are compiled here before they are sent: what is wrong with one is for its
client to mend, so it must be known before anything runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import ModelSpec
from novacron.records.request import Request


class GrammarCheck:
    """Of one model. Compiles beside the event loop, in a thread that is started when needed."""

    def __init__(self) -> None:
        self._compiler: GrammarCompiler | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._num_pending = 0

    @property
    def num_pending(self) -> int:
        """Requests that are being checked. They keep their places in the queue meanwhile."""
        return self._num_pending

    async def check(
        self, requests: tuple[Request, ...], tokenizer: Tokenizer, spec: ModelSpec
    ) -> None:
        """Raises InvalidRequest where a grammar cannot be compiled."""
        wanted = {request.sampling.structured_output for request in requests}
        grammars = [grammar for grammar in wanted if grammar is not None]
        if not grammars:
            return
        if self._compiler is None:
            self._compiler = GrammarCompiler(
                tokenizer.json_text, spec.vocab_size, spec.eos_token_ids
            )
        compiler, loop = self._compiler, asyncio.get_running_loop()
        self._num_pending += len(requests)
        try:
            for grammar in grammars:
                await loop.run_in_executor(self._thread, compiler.compile, grammar)
        finally:
            self._num_pending -= len(requests)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
