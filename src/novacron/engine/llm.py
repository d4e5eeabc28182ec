"""LLM: a model for offline use in Python, in this process, without a server.

from novacron import LLM, SamplingParams

llm = LLM()  # the bundled model; or LLM("path/to/a/Hugging Face folder")
[answer] = llm.chat([{"role": "user", "content": "What is the capital of France?"}])
print(answer.text)
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.admission import admit
from novacron.engine.build import build_core, load_executor
from novacron.engine.model_path import resolve_model_path
from novacron.engine.output_processor import OutputProcessor, merge
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError, InvalidRequest
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Pooling, Request, SamplingParams

Prompt = str | Sequence[int]
_Part = TypeVar("_Part", ModelConfig, CacheConfig, SchedulerConfig, SpeculativeConfig)


class LLM:
    """Owns an EngineCore and drives it. Not safe to share between threads.

    `settings` are the fields of ModelConfig, CacheConfig, SchedulerConfig and SpeculativeConfig by
    name, such as dtype="float32" or max_model_len=2048. Raises ConfigError and ModelLoadError.
    """

    def __init__(self, model: str = "", **settings: Any) -> None:
        config = _engine_config(model, settings)
        if config.model.variants:
            raise ConfigError(
                "variants are for a server, whose requests choose among them. Make an LLM for each."
            )
        if config.model.data_parallel_size > 1:
            raise ConfigError(
                "data_parallel_size is for a server, which shares requests out among replicas. "
                "Leave it out: an LLM runs one engine in this process."
            )
        path = resolve_model_path(model)
        executor = load_executor(config, path, lambda phase, fraction: None)
        tokenizer_path = Path(config.model.tokenizer or path)
        template = Path(config.model.chat_template) if config.model.chat_template else None
        self.tokenizer = Tokenizer.load(tokenizer_path, template)
        self.spec = executor.spec
        self._core = build_core(config, executor, tokenizer_path)
        self._seeds = random.Random(config.model.seed)
        self._ids = itertools.count()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        *,
        n: int = 1,
    ) -> list[RequestOutput]:
        """Complete each prompt (text or token ids) `n` times, batched.

        Outputs come in the order of the prompts, the n completions of a prompt side by side.
        A prompt that cannot be computed raises before anything runs.
        """
        requests = [
            self._request(token_ids, sampling or SamplingParams(), copy)
            for token_ids in map(self._encode, _as_list(prompts))
            for copy in range(n)
        ]
        return self._run(requests)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling: SamplingParams | None = None,
        **template_arguments: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation, or each of several, by the model's chat template."""
        if not messages:
            raise InvalidRequest("No message was given.", param="messages")
        conversations = [messages] if isinstance(messages[0], Mapping) else messages
        prompts = [
            self.tokenizer.apply_chat_template(conversation, **template_arguments)  # type: ignore[arg-type]
            for conversation in conversations
        ]
        return self.generate(prompts, sampling)

    def embed(
        self, prompts: Prompt | Sequence[Prompt], pooling: Pooling = "mean"
    ) -> list[list[float]]:
        """One vector of unit length per prompt, from the model's last hidden states."""
        requests = [
            msgspec.structs.replace(self._request(ids, SamplingParams(), 0), pooling=pooling)
            for ids in map(self._encode, _as_list(prompts))
        ]
        return [list(output.embedding or ()) for output in self._run(requests)]

    def close(self) -> None:
        """Free the model's memory."""
        self._core.shutdown()

    def _encode(self, prompt: Prompt) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _request(self, token_ids: list[int], sampling: SamplingParams, copy: int) -> Request:
        return Request(
            request_id=str(next(self._ids)),
            prompt_token_ids=tuple(token_ids),
            sampling=sampling.for_copy(copy),
            arrival_time_s=time.monotonic(),
        )

    def _run(self, requests: list[Request]) -> list[RequestOutput]:
        admitted = [admit(request, self.spec, self._seeds) for request in requests]
        processors = {
            request.request_id: OutputProcessor(self.tokenizer, request, 0) for request in admitted
        }
        outputs: dict[str, RequestOutput] = {}
        for request in admitted:
            self._core.add(request)
        try:
            while len(processors) > sum(output.finished for output in outputs.values()):
                for news in self._core.step():
                    self._collect(news, processors, outputs)
        except BaseException:
            self._core.abort(processors)
            raise
        return [outputs[request.request_id] for request in requests]

    def _collect(
        self,
        news: EngineOutput,
        processors: Mapping[str, OutputProcessor],
        outputs: dict[str, RequestOutput],
    ) -> None:
        earlier = outputs.get(news.request_id)
        if earlier is not None and earlier.finished:
            return  # ended by a stop string in the step before
        output = processors[news.request_id].process(news)
        outputs[news.request_id] = merge(earlier, output) if earlier else output
        if output.finish_reason is FinishReason.STOP and news.finish_reason is None:
            self._core.abort((news.request_id,))


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if not prompts:
        raise InvalidRequest("No prompt was given.", param="prompts")
    if isinstance(prompts[0], int):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _engine_config(model: str, settings: Mapping[str, Any]) -> EngineConfig:
    remaining = {"model": model, **settings}

    def part(kind: type[_Part]) -> _Part:
        names = {field.name for field in fields(kind)} & remaining.keys()
        return kind(**{name: remaining.pop(name) for name in names})

    config = EngineConfig(
        model=part(ModelConfig),
        cache=part(CacheConfig),
        scheduler=part(SchedulerConfig),
        speculative=part(SpeculativeConfig),
    )
    if remaining:
        raise ConfigError(f"LLM has no setting named {', '.join(remaining)}.")
    return config
