"""Text completions: a CompletionBody as a Call, and its outputs as chunks or as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec
from msgspec import UNSET

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.openai.copies import copies_of
from novacron.gateway.openai.logprobs import (
    completion_logprobs,
    echoed_logprobs,
    joined,
    prompt_logprobs,
    text_length,
)
from novacron.gateway.openai.responses import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
    Usage,
    encode,
)
from novacron.gateway.openai.sampling import sampling_params, structured_output
from novacron.gateway.openai.schema import CompletionBody
from novacron.gateway.openai.usage import Counted, usage_of
from novacron.gateway.streaming import DONE, frame
from novacron.records.output import RequestOutput, TextLogprobs
from novacron.records.request import SamplingParams

_DEFAULT_MAX_TOKENS = 16  # OpenAI's
_MAX_REQUESTS = 2048  # prompts times n, of one call


def parse_completion(
    body: CompletionBody, origin: CallOrigin, tokenizer: Tokenizer
) -> CompletionReply:
    """Raises InvalidRequest for what is not supported; nothing asked for is ignored silently."""
    if body.suffix:
        raise InvalidRequest(
            "suffix is not supported: the model writes only forward. Leave it out.", "suffix"
        )
    if body.best_of not in (None, body.n or 1):
        raise InvalidRequest("best_of is not supported unless it equals n; use n.", "best_of")
    sampling = _sampling(body)
    prompts = prompt_token_ids(
        body.prompt,
        tokenizer,
        add_special_tokens=body.add_special_tokens is not False,
        parse_special=body.parse_special is not False,
    )
    if len(prompts) * (body.n or 1) > _MAX_REQUESTS:
        raise InvalidRequest(
            f"{len(prompts)} prompts times n are more than {_MAX_REQUESTS} completions; send fewer "
            "prompts in a call.",
            param="prompt",
        )
    requests = chain.from_iterable(copies_of(ids, sampling, body, origin) for ids in prompts)
    call = Call(origin=origin, requests=tuple(requests), n=body.n or 1)
    return CompletionReply(call, body, tokenizer)


def prompt_token_ids(
    prompt: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    *,
    add_special_tokens: bool = True,
    parse_special: bool = True,
) -> list[list[int]]:
    """The prompts that one text, several, one token list or several stand for."""
    match prompt:
        case str():
            prompts: Sequence[str | int | Sequence[int]] = [prompt]
        case [int(), *_]:
            prompts = [prompt]  # type: ignore[list-item]
        case _:
            prompts = prompt
    return [
        tokenizer.encode(one, add_special_tokens=add_special_tokens, parse_special=parse_special)
        if isinstance(one, str)
        else list(one)  # type: ignore[arg-type]
        for one in prompts
    ]


def _sampling(body: CompletionBody) -> SamplingParams:
    max_tokens = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise InvalidRequest(
            "max_tokens may be 0 only with echo, which returns the prompt itself.", "max_tokens"
        )
    echoes_logprobs = body.logprobs if body.echo else None
    return sampling_params(
        body,
        max_tokens=max(1, max_tokens),
        logprobs=body.logprobs,
        prompt_logprobs=_larger(body.prompt_logprobs, echoes_logprobs),
        structured_output=structured_output(body),
    )


def _larger(first: int | None, second: int | None) -> int | None:
    given = [count for count in (first, second) if count is not None]
    return max(given) if given else None


class CompletionReply:
    """One completion's call, and its outputs in OpenAI's words: chunk by chunk, or as a whole."""

    def __init__(self, call: Call, body: CompletionBody, tokenizer: Tokenizer) -> None:
        self.call = call
        self._body = body
        self._tokenizer = tokenizer
        self._prompts = _echoed_prompts(body, call, tokenizer)
        self._hidden = (
            frozenset() if body.skip_special_tokens is False else tokenizer.special_token_ids
        )
        self._only_echo = body.max_tokens == 0
        self._wants_logprobs = body.logprobs is not None
        self._wants_prompt_logprobs = body.prompt_logprobs is not None
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._latest: list[RequestOutput | None] = [None] * len(call.requests)
        self._offsets: dict[int, int] = {}
        self._prompt_positions: list[list[TextLogprobs]] = [[] for _ in call.requests]

    def twin(self) -> CompletionReply:
        """Another one of the same call, which has told nothing yet."""
        return CompletionReply(self.call, self._body, self._tokenizer)

    def frames(self, output: RequestOutput) -> bytes:
        """The events for one output; none for an output without news for the client."""
        pieces = self.pieces(output)
        return b"".join(frame(encode(self._chunk((piece,), None))) for piece in pieces)

    def last_frames(self) -> bytes:
        if not self._wants_usage:
            return DONE
        return frame(encode(self._chunk((), self._usage(self._latest)))) + DONE

    def pieces(self, output: RequestOutput) -> list[CompletionChunkChoice]:
        index = output.index
        self._latest[index] = output
        positions = self._prompt_positions[index]
        positions.extend(filter(None, output.prompt_logprobs))
        if not output.token_ids and not output.finished:
            return []  # the prompt is still being computed
        pieces = []
        if index not in self._offsets:
            echo = self._echo(index)
            self._offsets[index] = len(echo)
            if echo:
                logprobs = self._echoed_logprobs(index, positions)
                pieces.append(CompletionChunkChoice(index, echo, logprobs))
        if output.text or output.logprobs or output.finished:
            pieces.append(self._generated_piece(output))
        return pieces

    def whole(self, choices: Sequence[Choice]) -> Completion:
        origin = self.call.origin
        return Completion(
            id=origin.call_id,
            created=origin.created,
            model=origin.model,
            choices=tuple(self._whole_choice(i, choice) for i, choice in enumerate(choices)),
            warnings=origin.warnings or UNSET,
            usage=self._usage(choices),
        )

    def _usage(self, counted: Sequence[Counted | None]) -> Usage:
        """A token that had to be generated, but was not asked for, is not counted."""
        usage = usage_of(self.call, counted)
        if not self._only_echo:
            return usage
        return msgspec.structs.replace(usage, completion_tokens=0, total_tokens=usage.prompt_tokens)

    def _chunk(
        self, choices: tuple[CompletionChunkChoice, ...], usage: Usage | None
    ) -> CompletionChunk:
        origin = self.call.origin
        return CompletionChunk(
            id=origin.call_id,
            created=origin.created,
            model=origin.model,
            choices=choices,
            usage=usage if self._wants_usage else UNSET,
        )

    def _generated_piece(self, output: RequestOutput) -> CompletionChunkChoice:
        index = output.index
        ended = output.stop_reason if output.finished else UNSET
        if self._only_echo:
            return CompletionChunkChoice(index, "", None, output.finish_reason, ended)
        logprobs = completion_logprobs(output.logprobs, self._offsets[index], self._hidden)
        self._offsets[index] += text_length(output.logprobs, self._hidden)
        return CompletionChunkChoice(index, output.text, logprobs, output.finish_reason, ended)

    def _whole_choice(self, index: int, choice: Choice) -> CompletionChoice:
        assert choice.finish_reason is not None
        echo = self._echo(index)
        text, generated = ("", []) if self._only_echo else (choice.text, choice.logprobs)
        return CompletionChoice(
            index=index,
            text=echo + text,
            finish_reason=choice.finish_reason,
            logprobs=joined(
                self._echoed_logprobs(index, choice.prompt_logprobs),
                completion_logprobs(generated, len(echo), self._hidden),
            ),
            stop_reason=choice.stop_reason,
            prompt_logprobs=prompt_logprobs(choice.prompt_logprobs)
            if self._wants_prompt_logprobs
            else UNSET,
        )

    def _echo(self, index: int) -> str:
        return self._prompts[index // self.call.n] if self._prompts else ""

    def _echoed_logprobs(
        self, index: int, positions: Sequence[TextLogprobs]
    ) -> CompletionLogprobs | None:
        if not self._prompts or not self._wants_logprobs:
            return None
        first_token_id = self.call.requests[index].prompt_token_ids[0]
        first_text = self._tokenizer.token_text(first_token_id)
        return echoed_logprobs(first_token_id, first_text, positions, self._hidden)


def _echoed_prompts(body: CompletionBody, call: Call, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The text of each prompt, as sent or decoded; nothing if no echo is wanted."""
    if not body.echo:
        return ()
    is_one = isinstance(body.prompt, str) or isinstance(body.prompt[0], int)
    prompts = [body.prompt] if is_one else body.prompt
    return tuple(
        prompt if isinstance(prompt, str) else tokenizer.decode(request.prompt_token_ids)
        for prompt, request in zip(prompts, call.requests[:: call.n], strict=True)
    )
