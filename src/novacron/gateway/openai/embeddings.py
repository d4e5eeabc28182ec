"""Embeddings: texts as Calls that pool hidden states, and vectors in either encoding."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from uuid import uuid4

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway.cache_scope import scope_of
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.openai.completions import prompt_token_ids
from novacron.gateway.openai.responses import Embedding, EmbeddingList, EmbeddingUsage
from novacron.gateway.openai.schema import EmbeddingBody
from novacron.records.request import Request, SamplingParams

_MAX_INPUTS = 2048  # OpenAI's


def embedding_call(
    body: EmbeddingBody, origin: CallOrigin, tokenizer: Tokenizer, hidden_size: int
) -> Call:
    """One Request per input. Raises InvalidRequest for more dimensions than there are."""
    if body.dimensions is not None and body.dimensions > hidden_size:
        raise InvalidRequest(
            f"dimensions is {body.dimensions}, but the model's vectors have {hidden_size}.",
            param="dimensions",
        )
    inputs = prompt_token_ids(body.input, tokenizer)
    if len(inputs) > _MAX_INPUTS:
        raise InvalidRequest(
            f"input has {len(inputs)} entries; at most {_MAX_INPUTS} are accepted.", param="input"
        )
    scope = scope_of(origin.caller, body.cache_salt, body.cache_scope)
    return Call(
        origin=origin,
        requests=tuple(
            Request(
                request_id=uuid4().hex,
                prompt_token_ids=tuple(token_ids),
                sampling=SamplingParams(max_tokens=1),
                arrival_time_s=origin.arrival_time_s,
                priority=origin.caller.priority_of(body.priority),
                tenant=origin.caller.tenant,
                weight=origin.caller.weight,
                cache_salt=scope.salt,
                cache_scope=scope.tag,
                variant=origin.variant,
                pooling=body.pooling or "mean",
            )
            for token_ids in inputs
        ),
    )


def embedding_list(body: EmbeddingBody, call: Call, choices: Sequence[Choice]) -> EmbeddingList:
    tokens = call.num_prompt_tokens
    as_text = body.encoding_format == "base64"
    return EmbeddingList(
        data=tuple(
            Embedding(index, _encoded(unit_vector(choice, body.dimensions), as_text=as_text))
            for index, choice in enumerate(choices)
        ),
        model=call.origin.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def unit_vector(choice: Choice, dimensions: int | None) -> tuple[float, ...]:
    """The embedding of unit length, also when cut to fewer dimensions."""
    if choice.embedding is None:
        raise InvalidRequest("The request was cancelled before its embedding was computed.")
    values = choice.embedding[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in values))
    return tuple(value / length for value in values) if length else tuple(values)


def _encoded(vector: tuple[float, ...], *, as_text: bool) -> tuple[float, ...] | str:
    if not as_text:
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()
