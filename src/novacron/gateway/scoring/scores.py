"""How near a text is to a query: pairs as a Call, and its outcome as scores. Pure.

Two measures, either of any model; neither needs one that was trained to rank.

embedding: the cosine of the two pooled vectors, the mean of the hidden states, -1 to 1. Each text
is computed once, whatever number of pairs it is in.

likelihood: how likely the query is, word for word, after the text: exp of the mean log-probability
of its tokens, 0 to 1, the inverse of its perplexity. One pass for each pair. (Query likelihood, of
Ponte and Croft 1998, by a language model that has read the text.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway.cache_scope import scope_of
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.openai.embeddings import unit_vector
from novacron.gateway.scoring.schema import Method, ScoringBody
from novacron.records.request import Pooling, Request, SamplingParams

_SEPARATOR = "\n"


@dataclass(frozen=True)
class Pair:
    query: str
    text: str


@dataclass(frozen=True)
class Scoring:
    """A call that scores pairs. `scores` reads them off its choices, in the order of the pairs."""

    call: Call
    pairs: tuple[Pair, ...]
    texts: tuple[str, ...] = ()  # embedding: the text of each request
    query_lengths: tuple[int, ...] = ()  # likelihood: tokens of the query of each request

    def scores(self, choices: Sequence[Choice]) -> list[float]:
        if not self.texts:
            return [
                _likelihood(choice, length)
                for choice, length in zip(choices, self.query_lengths, strict=True)
            ]
        vectors = {
            text: unit_vector(choice, None)
            for text, choice in zip(self.texts, choices, strict=True)
        }
        return [_cosine(vectors[pair.query], vectors[pair.text]) for pair in self.pairs]


def scoring(
    body: ScoringBody,
    pairs: Sequence[Pair],
    origin: CallOrigin,
    tokenizer: Tokenizer,
    default_method: Method,
) -> Scoring:
    """Raises InvalidRequest for an empty text."""
    for pair in pairs:
        if not pair.query or not pair.text:
            raise InvalidRequest("A text to be scored is empty; leave it out.")
    if (body.method or default_method) == "likelihood":
        return _by_likelihood(body, pairs, origin, tokenizer)
    texts = tuple(dict.fromkeys(text for pair in pairs for text in (pair.query, pair.text)))
    requests = tuple(
        _request(body, origin, tokenizer.encode(text), SamplingParams(max_tokens=1), "mean")
        for text in texts
    )
    return Scoring(Call(origin=origin, requests=requests), tuple(pairs), texts=texts)


def _by_likelihood(
    body: ScoringBody, pairs: Sequence[Pair], origin: CallOrigin, tokenizer: Tokenizer
) -> Scoring:
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
    requests, lengths = [], []
    for pair in pairs:
        query = tokenizer.encode(_SEPARATOR + pair.query, add_special_tokens=False)
        requests.append(_request(body, origin, tokenizer.encode(pair.text) + query, sampling, None))
        lengths.append(len(query))
    call = Call(origin=origin, requests=tuple(requests))
    return Scoring(call, tuple(pairs), query_lengths=tuple(lengths))


def _request(
    body: ScoringBody,
    origin: CallOrigin,
    token_ids: Sequence[int],
    sampling: SamplingParams,
    pooling: Pooling | None,
) -> Request:
    scope = scope_of(origin.caller, body.cache_salt, None)
    return Request(
        request_id=uuid4().hex,
        prompt_token_ids=tuple(token_ids),
        sampling=sampling,
        arrival_time_s=origin.arrival_time_s,
        priority=origin.caller.priority_of(body.priority),
        tenant=origin.caller.tenant,
        weight=origin.caller.weight,
        cache_salt=scope.salt,
        cache_scope=scope.tag,
        variant=origin.variant,
        pooling=pooling,
    )


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    product = math.fsum(x * y for x, y in zip(first, second, strict=True))
    return max(-1.0, min(1.0, product))


def _likelihood(choice: Choice, query_length: int) -> float:
    logprobs = [position.chosen.logprob for position in choice.prompt_logprobs[-query_length:]]
    if len(logprobs) < query_length:
        raise InvalidRequest("The request was cancelled before its text was scored.")
    return math.exp(math.fsum(logprobs) / query_length)
