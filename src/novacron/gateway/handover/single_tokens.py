"""Outputs of several tokens cut into single ones, as an engine brings them that is waited for.

A stream is on record up to some token, and its readers may have been told a few more, each by
itself. Whoever goes on with it must tell these in the same pieces, for events are numbered.
"""

from __future__ import annotations

import msgspec

from novacron.engine.output_processor import OutputProcessor
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Request


class SingleTokens:
    """Of one request, for its next `num_tokens` tokens; then outputs stay as they are."""

    def __init__(self, tokenizer: Tokenizer, request: Request, index: int, num_tokens: int) -> None:
        self._text = OutputProcessor(tokenizer, request, index)
        self._num_left = num_tokens

    def cut(self, output: RequestOutput) -> list[RequestOutput]:
        """Pieces that together are `output`."""
        tokens = output.token_ids
        if self._num_left <= 0:
            return [output]
        num_tokens = min(len(tokens), self._num_left)
        self._num_left -= num_tokens
        if len(tokens) <= 1:
            self._text_of(output, tokens, is_last=output.finished)
            return [output]
        pieces, shown = [], 0
        before = output.num_output_tokens - len(tokens)
        for place in range(num_tokens):
            is_last = place == len(tokens) - 1
            text = self._text_of(output, tokens[place : place + 1], is_last=is_last)
            piece = _part(output, place, place + 1, before, output.text[shown : shown + len(text)])
            shown += len(text)
            pieces.append(piece)
        if num_tokens < len(tokens):
            rest = _part(output, num_tokens, len(tokens), before, output.text[shown:])
            pieces.append(rest)
        return [*pieces[:-1], _as_last(pieces[-1], output, output.text, pieces)]

    def _text_of(self, output: RequestOutput, tokens: tuple[int, ...], *, is_last: bool) -> str:
        reason = output.finish_reason if is_last else None
        stopped_by_string = reason is FinishReason.STOP and isinstance(output.stop_reason, str)
        engine_output = EngineOutput(
            request_id=output.request_id,
            new_token_ids=tokens,
            finish_reason=None if stopped_by_string else reason,
        )
        return self._text.process(engine_output).text


def _part(output: RequestOutput, first: int, end: int, before: int, text: str) -> RequestOutput:
    return msgspec.structs.replace(
        output,
        text=text,
        token_ids=output.token_ids[first:end],
        logprobs=output.logprobs[first:end],
        prompt_logprobs=output.prompt_logprobs if first == 0 else (),
        num_output_tokens=before + end,
        finish_reason=None,
        stop_reason=None,
        pause_s=output.pause_s if first == 0 else None,
    )


def _as_last(
    piece: RequestOutput, output: RequestOutput, text: str, pieces: list[RequestOutput]
) -> RequestOutput:
    """With the end of the whole, and whatever of its text no other piece has."""
    shown = sum(len(one.text) for one in pieces[:-1])
    return msgspec.structs.replace(
        piece,
        text=text[shown:],
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
        error=output.error,
    )
