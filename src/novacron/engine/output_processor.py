"""From the engine's token ids to the caller's text: one OutputProcessor per request.

Runs in the client's process, beside the engine's. Finds stop strings, which the engine, knowing
only tokens, cannot see.
"""

from __future__ import annotations

import msgspec

from novacron.engine.detokenization import IncrementalDetokenizer
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import EngineOutput, RequestOutput, TextLogprobs, TokenLogprob
from novacron.records.request import FinishReason, Request
from novacron.records.step import PositionLogprobs


class OutputProcessor:
    """Turns the EngineOutputs of one request into RequestOutputs, the last one final.

    Of a continued stream, what it has had already counts, and its text goes on exactly where it
    was: text and search depend on the tokens alone, which are gone through again in silence.
    """

    def __init__(self, tokenizer: Tokenizer, request: Request, index: int) -> None:
        sampling = request.sampling
        self.request = request
        self._tokenizer = tokenizer
        self._index = index
        self._num_output_tokens = len(request.output_token_ids)
        self._num_cached_tokens = 0
        self._detokenizer = IncrementalDetokenizer(
            tokenizer,
            prompt_token_ids=request.prompt_token_ids,
            skip_special_tokens=sampling.skip_special_tokens,
            stop=sampling.stop,
            include_stop_str=sampling.include_stop_str_in_output,
            min_tokens=sampling.min_tokens,
        )
        if request.output_token_ids:
            self._detokenizer.push(request.output_token_ids)

    def process(self, output: EngineOutput) -> RequestOutput:
        """The caller's view of `output`.

        Its finish_reason is STOP, with the string as stop_reason, if a stop string was completed;
        the engine then still believes in the request and must be told to abort it.
        """
        self._num_cached_tokens = max(self._num_cached_tokens, output.num_cached_tokens)
        text, stop, num_tokens = self._text_of(output)
        self._num_output_tokens += num_tokens
        finish_reason = FinishReason.STOP if stop is not None else output.finish_reason
        return RequestOutput(
            request_id=self.request.request_id,
            index=self._index,
            text=text,
            token_ids=output.new_token_ids[:num_tokens],
            logprobs=tuple(map(self._text_logprobs, output.logprobs[:num_tokens])),
            prompt_logprobs=tuple(map(self._text_logprobs, output.prompt_logprobs)),
            embedding=output.embedding,
            finish_reason=finish_reason,
            stop_reason=stop if stop is not None else output.stop_token_id,
            error=output.error,
            num_prompt_tokens=len(self.request.prompt_token_ids),
            num_output_tokens=self._num_output_tokens,
            num_cached_tokens=self._num_cached_tokens,
            first_scheduled_time_s=output.first_scheduled_time_s,
            was_shed=output.was_shed,
        )

    def _text_of(self, output: EngineOutput) -> tuple[str, str | None, int]:
        """New text, the stop string that ended it, and how many of the new tokens came to be: those
        that a step brought beyond a stop string did not."""
        text, stop, num_tokens = self._detokenizer.push(self._without_stop_token(output))
        if stop is not None:
            return text, stop, num_tokens
        if output.finish_reason is not None:
            text += self._detokenizer.flush()
        return text, None, len(output.new_token_ids)

    def _without_stop_token(self, output: EngineOutput) -> tuple[int, ...]:
        """The tokens that belong to the text: a token that ended the request does not."""
        ended_by_token = output.finish_reason is FinishReason.STOP and output.new_token_ids
        if ended_by_token and not self.request.sampling.include_stop_str_in_output:
            return output.new_token_ids[:-1]
        return output.new_token_ids

    def _text_logprobs(self, position: PositionLogprobs) -> TextLogprobs:
        chosen, *top = (
            TokenLogprob(
                token_id=token_id,
                text=self._tokenizer.token_text(token_id),
                logprob=logprob,
                data=self._tokenizer.token_bytes(token_id),
            )
            for token_id, logprob in zip(position.token_ids, position.logprobs, strict=True)
        )
        return TextLogprobs(chosen=chosen, top=tuple(top))


def merge(earlier: RequestOutput, later: RequestOutput) -> RequestOutput:
    """Two consecutive outputs of one request as one, for a caller that reads slowly."""
    return msgspec.structs.replace(
        later,
        text=earlier.text + later.text,
        token_ids=earlier.token_ids + later.token_ids,
        logprobs=earlier.logprobs + later.logprobs,
        prompt_logprobs=earlier.prompt_logprobs + later.prompt_logprobs,
        embedding=later.embedding or earlier.embedding,
        first_scheduled_time_s=earlier.first_scheduled_time_s or later.first_scheduled_time_s,
    )
