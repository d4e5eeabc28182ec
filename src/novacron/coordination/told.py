"""Outputs of a stream as its record has them: all that its events are made of, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from novacron.records.output import RequestOutput, TextLogprobs
from novacron.records.request import FinishReason, Request


class _Told(msgspec.Struct, frozen=True, array_like=True):
    index: int
    text: str
    token_ids: tuple[int, ...]
    num_output_tokens: int
    num_cached_tokens: int
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    error: str | None
    logprobs: tuple[TextLogprobs, ...]
    prompt_logprobs: tuple[TextLogprobs | None, ...]


_FIELDS = _Told.__struct_fields__
_decode = msgspec.msgpack.Decoder(list[_Told]).decode


def encode(outputs: Iterable[RequestOutput]) -> bytes:
    """A chunk of a record."""
    return msgspec.msgpack.encode([_Told(*(getattr(one, f) for f in _FIELDS)) for one in outputs])


def decode(chunks: Iterable[bytes], requests: Sequence[Request]) -> list[RequestOutput]:
    """The outputs in all `chunks`, of `requests` as they were made again."""
    return [
        RequestOutput(
            request_id=requests[told.index].request_id,
            num_prompt_tokens=len(requests[told.index].prompt_token_ids),
            **{name: getattr(told, name) for name in _FIELDS},
        )
        for chunk in chunks
        for told in _decode(chunk)
    ]
