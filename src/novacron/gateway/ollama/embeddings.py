"""Embeddings in Ollama's words, by the call that OpenAI's are made of."""

from __future__ import annotations

import time
from collections.abc import Sequence

from novacron.engine.tokenization import Tokenizer
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.ollama.records import OllamaEmbeddings
from novacron.gateway.ollama.replies import nanoseconds
from novacron.gateway.ollama.schema import EmbedBody, OldEmbedBody
from novacron.gateway.openai.embeddings import embedding_call, unit_vector
from novacron.gateway.openai.schema import EmbeddingBody
from novacron.records.output import ModelSpec


def embed_call(
    body: EmbedBody | OldEmbedBody, origin: CallOrigin, tokenizer: Tokenizer, spec: ModelSpec
) -> Call:
    """One Request per text. Raises InvalidRequest."""
    texts = [body.prompt] if isinstance(body, OldEmbedBody) else body.input
    texts = [texts] if isinstance(texts, str) else texts
    prompts = [tokenizer.encode(text) for text in texts]
    if isinstance(body, EmbedBody) and body.truncate:
        prompts = [token_ids[: spec.max_model_len - 1] for token_ids in prompts]
    translated = EmbeddingBody.model_construct(
        input=prompts,
        dimensions=body.dimensions if isinstance(body, EmbedBody) else None,
        priority=body.priority,
        cache_salt=body.cache_salt,
        cache_scope=body.cache_scope,
    )
    return embedding_call(translated, origin, tokenizer, spec.hidden_size)


def embeddings(call: Call, choices: Sequence[Choice], dimensions: int | None) -> OllamaEmbeddings:
    return OllamaEmbeddings(
        model=call.origin.model,
        embeddings=tuple(unit_vector(choice, dimensions) for choice in choices),
        total_duration=nanoseconds(time.monotonic() - call.origin.arrival_time_s),
        load_duration=0,
        prompt_eval_count=call.num_prompt_tokens,
    )
