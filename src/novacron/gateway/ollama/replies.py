"""An answer in Ollama's words: as a whole, or line by line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from novacron.gateway.calls import Choice
from novacron.gateway.error_mapping import error_body
from novacron.gateway.ollama.errors import ollama_error
from novacron.gateway.ollama.records import (
    OllamaAnswer,
    OllamaAnswerMessage,
    OllamaCall,
    OllamaCalledFunction,
    line,
    rfc3339,
)
from novacron.gateway.openai.chat import ChatReply
from novacron.gateway.openai.logprobs import chat_logprobs
from novacron.gateway.openai.responses import ToolCallDelta
from novacron.gateway.streaming import StreamForm
from novacron.records.output import RequestOutput, TextLogprobs

AnswerKind = Literal["chat", "text"]

NDJSON = "application/x-ndjson"
_DONE_REASONS = {"tool_calls": "stop", "abort": "stop"}


class OllamaReply:
    """One call, and its outputs as lines or as a whole."""

    def __init__(self, chat: ChatReply, kind: AnswerKind) -> None:
        self.call = chat.call
        self._chat = chat
        self._kind = kind
        self._times = _Times(chat.call.origin.arrival_time_s)
        self._calls: list[_GrowingCall] = []
        self._num_told = 0  # calls that went out
        self._finish_reason = "stop"
        self._num_output_tokens = 0

    @property
    def form(self) -> StreamForm:
        """A silent stream gets lines with no text: this format has no comments."""
        return StreamForm(
            error_frame=lambda error: line(ollama_error(error_body(error))),
            keep_alive_frame=lambda: line(self._line("")),
            media_type=NDJSON,
        )

    def observe(self, output: RequestOutput) -> None:
        self._times.see(output)

    def twin(self) -> ChatReply:
        """The same call in OpenAI's words, of which nothing has been told yet."""
        return self._chat.twin()

    def frames(self, output: RequestOutput) -> bytes:
        self.observe(output)
        self._num_output_tokens = output.num_output_tokens
        lines = []
        logprobs = output.logprobs
        for piece in self._chat.pieces(output):
            for call in piece.delta.tool_calls or ():
                self._grow(call)
            if piece.delta.content or logprobs:
                lines.append(self._line(piece.delta.content or "", logprobs))
                logprobs = ()
            if piece.finish_reason is not None:
                self._finish_reason = piece.finish_reason
            if calls := self._ended_calls(all_have=piece.finish_reason is not None):
                lines.append(self._line("", calls=calls))
        return b"".join(map(line, lines))

    def last_frames(self) -> bytes:
        return line(self._last("", self._finish_reason, self._num_output_tokens))

    def whole(self, choices: Sequence[Choice]) -> OllamaAnswer:
        [choice] = self._chat.whole(choices).choices
        calls = tuple(
            _call(call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or ()
        )
        return self._last(
            choice.message.content or "",
            choice.finish_reason,
            choices[0].num_output_tokens,
            choices[0].logprobs,
            calls,
        )

    def _line(
        self,
        text: str,
        logprobs: Sequence[TextLogprobs] = (),
        calls: tuple[OllamaCall, ...] = (),
    ) -> OllamaAnswer:
        content = chat_logprobs(logprobs)
        message = OllamaAnswerMessage(text, tool_calls=calls or UNSET)
        return OllamaAnswer(
            model=self.call.origin.model,
            created_at=rfc3339(time.time()),
            message=message if self._kind == "chat" else UNSET,
            response=text if self._kind == "text" else UNSET,
            logprobs=UNSET if content is None else content.content,
            done=False,
        )

    def _last(
        self,
        text: str,
        finish_reason: str,
        num_output_tokens: int,
        logprobs: Sequence[TextLogprobs] = (),
        calls: tuple[OllamaCall, ...] = (),
    ) -> OllamaAnswer:
        return msgspec.structs.replace(
            self._line(text, logprobs, calls),
            done=True,
            done_reason=_DONE_REASONS.get(finish_reason, finish_reason),
            prompt_eval_count=self.call.num_prompt_tokens,
            eval_count=num_output_tokens,
            **self._times.durations(),
        )

    def _grow(self, delta: ToolCallDelta) -> None:
        if isinstance(delta.id, str):
            self._calls.append(_GrowingCall(delta.function.name or ""))
        self._calls[-1].arguments += delta.function.arguments or ""

    def _ended_calls(self, *, all_have: bool) -> tuple[OllamaCall, ...]:
        """Those not told yet. A call goes out as one object, when the next one begins."""
        end = len(self._calls) if all_have else len(self._calls) - 1
        ended = self._calls[self._num_told : max(end, self._num_told)]
        self._num_told += len(ended)
        return tuple(_call(call.name, call.arguments) for call in ended)


class _GrowingCall:
    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments = ""


class _Times:
    """Of one request: when it came, was begun, had its first token and its last."""

    def __init__(self, arrival_time_s: float) -> None:
        self._arrival_s = arrival_time_s
        self._begun_s: float | None = None
        self._first_token_s: float | None = None

    def see(self, output: RequestOutput) -> None:
        self._begun_s = self._begun_s or output.first_scheduled_time_s
        if output.token_ids and self._first_token_s is None:
            self._first_token_s = time.monotonic()

    def durations(self) -> dict[str, int]:
        now_s = time.monotonic()
        first_s = self._first_token_s or now_s
        return {
            "total_duration": nanoseconds(now_s - self._arrival_s),
            "load_duration": 0,
            "prompt_eval_duration": nanoseconds(first_s - (self._begun_s or self._arrival_s)),
            "eval_duration": nanoseconds(now_s - first_s),
        }


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def only_loaded(model: str, kind: AnswerKind) -> OllamaAnswer:
    """What a body without a prompt is answered."""
    return OllamaAnswer(
        model=model,
        created_at=rfc3339(time.time()),
        message=OllamaAnswerMessage("") if kind == "chat" else UNSET,
        response="" if kind == "text" else UNSET,
        done=True,
        done_reason="load",
    )


def _call(name: str, arguments: str) -> OllamaCall:
    return OllamaCall(OllamaCalledFunction(name, _object(arguments)))


def _object(text: str) -> dict[str, Any]:
    """An object whatever the model wrote: a call that was cut off has none."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
