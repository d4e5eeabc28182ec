"""A native call: what was asked, and its outputs as the seeds' events and response."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET

from novacron.engine.tokenization import Tokenizer
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.native.events import (
    CompleteData,
    FinishedChoice,
    InferenceResponse,
    MetadataData,
    ModelInfo,
    NativeChoice,
    Performance,
    TokenData,
)
from novacron.gateway.native.schema import NativeChatBody, NativeCompletionBody
from novacron.gateway.openai.chat import ChatReply, parse_chat
from novacron.gateway.openai.completions import CompletionReply, parse_completion
from novacron.gateway.openai.responses import (
    ChatChoice,
    ChatChunkChoice,
    CompletionChoice,
    CompletionChunkChoice,
)
from novacron.records.output import ModelSpec, RequestOutput

NativeBody = NativeChatBody | NativeCompletionBody


@dataclass(frozen=True)
class NativeCall:
    """A parsed native body. Events are made of the pieces of the OpenAI reply."""

    reply: ChatReply | CompletionReply
    session_id: str | None
    background: bool

    @property
    def call(self) -> Call:
        return self.reply.call

    @property
    def request_id(self) -> str:
        return self.call.origin.request_id

    def metadata(self) -> MetadataData:
        origin = self.call.origin
        is_chat = isinstance(self.reply, ChatReply)
        return MetadataData(
            object="chat.completion" if is_chat else "text_completion",
            model=origin.model,
            created=origin.created,
            session_id=self.session_id,
            num_choices=len(self.call.requests),
            prompt_tokens=self.call.num_prompt_tokens,
        )

    def tokens(self, output: RequestOutput) -> list[TokenData]:
        """Pieces with news; the bare opening of a chat's answer has none."""
        pieces = map(_token_data, self.reply.pieces(output))
        return [piece for piece in pieces if piece is not None]

    def complete(self, choices: Sequence[Choice], performance: Performance) -> CompleteData:
        whole = self.reply.whole(choices)
        return CompleteData(
            choices=tuple(
                FinishedChoice(choice.index, choice.finish_reason, choice.stop_reason)
                for choice in whole.choices
            ),
            usage=whole.usage,
            performance=performance,
            warnings=self.call.origin.warnings,
        )

    def response(
        self, choices: Sequence[Choice], performance: Performance, spec: ModelSpec
    ) -> InferenceResponse:
        whole = self.reply.whole(choices)
        return InferenceResponse(
            request_id=self.request_id,
            session_id=self.session_id,
            id=whole.id,
            object=whole.object,
            created=whole.created,
            model=whole.model,
            choices=tuple(map(_native_choice, whole.choices)),
            usage=whole.usage,
            model_info=model_info(whole.model, spec),
            performance=performance,
            warnings=self.call.origin.warnings,
        )


def native_call(body: NativeBody, origin: CallOrigin, tokenizer: Tokenizer) -> NativeCall:
    """Raises InvalidRequest."""
    reply = (
        parse_chat(body, origin, tokenizer)
        if isinstance(body, NativeChatBody)
        else parse_completion(body, origin, tokenizer)
    )
    return NativeCall(reply, body.session_id, bool(body.background))


def model_info(name: str, spec: ModelSpec) -> ModelInfo:
    return ModelInfo(
        id=name,
        architecture=spec.architecture,
        version=spec.model_version,
        dtype=spec.dtype,
        quantization=spec.quantization,
        device=spec.device,
        max_model_len=spec.max_model_len,
        num_parameters=spec.num_parameters,
    )


class Stopwatch:
    """Times of one call as its client feels them; of the first of its requests to get there."""

    def __init__(self, arrival_time_s: float) -> None:
        self._arrival_time_s = arrival_time_s
        self._scheduled_time_s: float | None = None
        self._first_token_time_s: float | None = None
        self._num_tokens = 0

    def see(self, output: RequestOutput) -> None:
        self._num_tokens += len(output.token_ids)
        self._scheduled_time_s = self._scheduled_time_s or output.first_scheduled_time_s
        if output.token_ids and self._first_token_time_s is None:
            self._first_token_time_s = time.monotonic()

    def performance(self) -> Performance:
        total_s = time.monotonic() - self._arrival_time_s
        return Performance(
            queue_time_ms=self._since_arrival_ms(self._scheduled_time_s),
            time_to_first_token_ms=self._since_arrival_ms(self._first_token_time_s),
            total_time_ms=_ms(total_s),
            tokens_per_second=round(self._num_tokens / total_s, 3) if total_s > 0 else 0.0,
        )

    def _since_arrival_ms(self, time_s: float | None) -> float | None:
        return None if time_s is None else _ms(max(0.0, time_s - self._arrival_time_s))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _token_data(piece: ChatChunkChoice | CompletionChunkChoice) -> TokenData | None:
    if isinstance(piece, CompletionChunkChoice):
        return TokenData(
            index=piece.index,
            text=piece.text,
            logprobs=piece.logprobs or UNSET,
            finish_reason=piece.finish_reason or UNSET,
        )
    delta = piece.delta
    if delta.role is not UNSET and not delta.content:
        return None
    return TokenData(
        index=piece.index,
        text=delta.content or "",
        delta=delta,
        logprobs=piece.logprobs or UNSET,
        finish_reason=piece.finish_reason or UNSET,
    )


def _native_choice(choice: ChatChoice | CompletionChoice) -> NativeChoice:
    message = choice.message if isinstance(choice, ChatChoice) else UNSET
    text = choice.text if isinstance(choice, CompletionChoice) else choice.message.content
    return NativeChoice(
        index=choice.index,
        text=text or "",
        message=message,
        finish_reason=choice.finish_reason,
        stop_reason=choice.stop_reason,
        logprobs=choice.logprobs,
    )
