"""A whole answer as it is kept: the outputs of a call, in order, to be played again.

Only whole answers are kept: every request of the call has ended by itself, and nobody stopped
reading before. Neighbouring pieces of a request are joined to a few tokens each, so that a replay
still streams and takes little room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from novacron.engine.output_processor import merge
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request

_FORMAT: Final = 1  # of what is kept; another one is a miss
_TOKENS_OF_PIECE: Final = 8


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`created_s` is Unix time. `format` tells old entries of a kept store apart."""

    pieces: tuple[RequestOutput, ...]
    created_s: float
    format: int = _FORMAT

    @property
    def num_output_tokens(self) -> int:
        return sum(piece.num_output_tokens for piece in self.pieces if piece.finished)

    def replay(self, requests: Sequence[Request]) -> Iterator[RequestOutput]:
        """The outputs as those of `requests`, which ask for the same."""
        for piece in self.pieces:
            request_id = requests[piece.index].request_id
            yield msgspec.structs.replace(piece, request_id=request_id)


class Recorder:
    """Notes the outputs of one call while they go by. Gives up beyond `max_tokens`."""

    def __init__(self, requests: Sequence[Request], max_model_len: int, max_tokens: int) -> None:
        self._requests = requests
        self._max_model_len = max_model_len
        self._open: list[RequestOutput | None] = [None] * len(requests)
        self._pieces: list[RequestOutput] = []
        self._num_whole = 0
        self._room = max_tokens
        self._is_good = True

    def add(self, output: RequestOutput) -> None:
        if not self._is_good:
            return
        self._room -= len(output.token_ids)
        if self._room < 0 or (output.finished and not self._is_whole(output)):
            self._is_good = False
            self._pieces.clear()
            return
        self._num_whole += output.finished
        output = msgspec.structs.replace(output, first_scheduled_time_s=None, pause_s=None)
        earlier = self._open[output.index]
        piece = output if earlier is None else merge(earlier, output)
        if piece.finished or len(piece.token_ids) >= _TOKENS_OF_PIECE:
            self._pieces.append(piece)
            self._open[output.index] = None
        else:
            self._open[output.index] = piece

    def _is_whole(self, last: RequestOutput) -> bool:
        """Ended by itself, or at the length that was asked for: a quota may have cut it before."""
        if last.finish_reason is not FinishReason.LENGTH:
            return last.finish_reason is FinishReason.STOP
        request = self._requests[last.index]
        at_end = len(request.prompt_token_ids) + last.num_output_tokens >= self._max_model_len
        return at_end or last.num_output_tokens == request.sampling.max_tokens

    def answer(self, now_s: float) -> CachedAnswer | None:
        """None of a call that is not whole, or was too long."""
        if not self._is_good or self._num_whole < len(self._open):
            return None
        return CachedAnswer(pieces=tuple(self._pieces), created_s=now_s)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CachedAnswer)


def encode(answer: CachedAnswer) -> bytes:
    return _encoder.encode(answer)


def decode(data: bytes) -> CachedAnswer | None:
    """None for what another version has kept."""
    try:
        answer = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return answer if answer.format == _FORMAT else None
