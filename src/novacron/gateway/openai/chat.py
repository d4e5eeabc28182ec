"""Chats: a ChatBody as a Call, and the outputs of the call as chunks or as one completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec import UNSET

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.openai.copies import copies_of
from novacron.gateway.openai.logprobs import chat_logprobs, prompt_logprobs
from novacron.gateway.openai.messages import plain_messages
from novacron.gateway.openai.responses import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    Usage,
    encode,
)
from novacron.gateway.openai.sampling import sampling_params, structured_output
from novacron.gateway.openai.schema import ChatBody, TokenizeBody
from novacron.gateway.openai.schema import ChatMessage as SentMessage
from novacron.gateway.openai.tools import ToolStream, ToolUse, tool_use, whole_message
from novacron.gateway.openai.usage import usage_of
from novacron.gateway.question import question_of
from novacron.gateway.streaming import DONE, frame
from novacron.gateway.tool_calls import call_ids
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, SamplingParams, StructuredOutput


def parse_chat(
    body: ChatBody, origin: CallOrigin, tokenizer: Tokenizer, context_length: int | None = None
) -> ChatReply:
    """With `context_length`, max_tokens is a ceiling: where fewer fit, as many as fit are meant.
    Without, the engine refuses what does not fit.

    Raises InvalidRequest for messages or tools that the model or its template cannot take.
    """
    tools = tool_use(body, tokenizer)
    prompt = chat_prompt(body, body.messages, tokenizer, tools.tools if tools else None)
    if context_length is not None and body.max_tokens:
        room = max(1, context_length - len(prompt))
        body = body.model_copy(update={"max_tokens": min(body.max_tokens, room)})
    return chat_reply(body, origin, prompt, tools)


def chat_reply(
    body: ChatBody, origin: CallOrigin, prompt: Sequence[int], tools: ToolUse | None
) -> ChatReply:
    """Of a chat whose prompt is written already."""
    sampling = _sampling(body, tools.constraint if tools else None)
    call = Call(
        origin=origin,
        requests=copies_of(prompt, sampling, body, origin),
        n=body.n or 1,
        question=partial(question_of, body),
    )
    return ChatReply(call, body, tools)


def chat_prompt(
    body: ChatBody | TokenizeBody,
    messages: Sequence[SentMessage],
    tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, object]] | None,
) -> list[int]:
    """Token ids of a conversation, as the model's template writes it."""
    continues = bool(body.continue_final_message)
    opens = not continues if body.add_generation_prompt is None else body.add_generation_prompt
    return tokenizer.apply_chat_template(
        plain_messages(messages),
        tools=tools,
        add_generation_prompt=opens,
        continue_final_message=continues,
        template_kwargs=body.chat_template_kwargs or {},
    )


def _sampling(body: ChatBody, tool_constraint: StructuredOutput | None) -> SamplingParams:
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    max_tokens = body.max_completion_tokens or body.max_tokens
    if max_tokens == 0:
        raise InvalidRequest("max_tokens must be at least 1 for a chat.", param="max_tokens")
    text_constraint = structured_output(body)
    if text_constraint and tool_constraint:
        raise InvalidRequest(
            "A forced tool call and a constraint on the text exclude each other.", "tool_choice"
        )
    return sampling_params(
        body,
        max_tokens=max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        structured_output=text_constraint or tool_constraint,
    )


class ChatReply:
    """One chat's call, and its outputs in OpenAI's words: chunk by chunk, or as a whole."""

    def __init__(self, call: Call, body: ChatBody, tools: ToolUse | None) -> None:
        self.call = call
        self._body = body
        self._tools = tools
        self._tool_streams = (
            [ToolStream(tools, self._call_ids(i)) for i in range(len(call.requests))]
            if tools
            else None
        )
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._wants_prompt_logprobs = body.prompt_logprobs is not None
        self._latest: list[RequestOutput | None] = [None] * len(call.requests)

    def twin(self) -> ChatReply:
        """Another one of the same call, which has told nothing yet."""
        return ChatReply(self.call, self._body, self._tools)

    def frames(self, output: RequestOutput) -> bytes:
        """The events for one output; none for an output without news for the client."""
        pieces = self.pieces(output)
        return b"".join(frame(encode(self._chunk((piece,), None))) for piece in pieces)

    def last_frames(self) -> bytes:
        if not self._wants_usage:
            return DONE
        return frame(encode(self._chunk((), usage_of(self.call, self._latest)))) + DONE

    def pieces(self, output: RequestOutput) -> list[ChatChunkChoice]:
        index = output.index
        pieces = []
        if self._latest[index] is None:
            pieces.append(ChatChunkChoice(index, ChatDelta(role="assistant", content="")))
        self._latest[index] = output
        logprobs = chat_logprobs(output.logprobs)
        for delta in self._deltas(output):
            pieces.append(ChatChunkChoice(index, delta, logprobs))
            logprobs = None
        if output.finished:
            pieces.append(self._last_piece(output))
        return pieces

    def whole(self, choices: Sequence[Choice]) -> ChatCompletion:
        origin = self.call.origin
        return ChatCompletion(
            id=origin.call_id,
            created=origin.created,
            model=origin.model,
            choices=tuple(self._whole_choice(i, choice) for i, choice in enumerate(choices)),
            warnings=origin.warnings or UNSET,
            usage=usage_of(self.call, choices),
            prompt_logprobs=prompt_logprobs(choices[0].prompt_logprobs)
            if self._wants_prompt_logprobs
            else UNSET,
        )

    def _call_ids(self, index: int) -> Callable[[], str]:
        return call_ids(self.call.origin.nonce, index)

    def _deltas(self, output: RequestOutput) -> list[ChatDelta]:
        if self._tool_streams is None:
            has_news = output.text or output.logprobs
            return [ChatDelta(content=output.text)] if has_news else []
        deltas = self._tool_streams[output.index].push(output.text, finished=output.finished)
        if output.logprobs and not deltas:  # the text is held back, its tokens need not be
            return [ChatDelta(content="")]
        return deltas

    def _chunk(self, choices: tuple[ChatChunkChoice, ...], usage: Usage | None) -> ChatChunk:
        origin = self.call.origin
        return ChatChunk(
            id=origin.call_id,
            created=origin.created,
            model=origin.model,
            choices=choices,
            usage=usage if self._wants_usage else UNSET,
        )

    def _last_piece(self, output: RequestOutput) -> ChatChunkChoice:
        assert output.finish_reason is not None
        streams = self._tool_streams
        has_calls = streams is not None and streams[output.index].num_calls > 0
        return ChatChunkChoice(
            output.index,
            ChatDelta(),
            finish_reason=_finish_reason(output.finish_reason, has_calls=has_calls),
            stop_reason=output.stop_reason,
        )

    def _whole_choice(self, index: int, choice: Choice) -> ChatChoice:
        assert choice.finish_reason is not None
        tools = self._tools
        message = (
            ChatMessage(choice.text)
            if tools is None
            else whole_message(choice.text, tools, self._call_ids(index))
        )
        has_calls = message.tool_calls is not UNSET
        return ChatChoice(
            index=index,
            message=message,
            finish_reason=_finish_reason(choice.finish_reason, has_calls=has_calls),
            logprobs=chat_logprobs(choice.logprobs),
            stop_reason=choice.stop_reason,
        )


def _finish_reason(reason: FinishReason, *, has_calls: bool) -> str:
    return "tool_calls" if has_calls and reason is FinishReason.STOP else reason.value
