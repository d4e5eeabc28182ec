"""The request of a call as its record has it, and the call made of it again, as a native one."""

from __future__ import annotations

from typing import Literal

import msgspec

from novacron.accounts.quota import Account
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.cache_scope import Caller
from novacron.gateway.calls import CallOrigin
from novacron.gateway.native.replies import NativeCall, native_call
from novacron.gateway.native.schema import NativeChatBody, NativeCompletionBody
from novacron.gateway.native.streams import Asked, Form
from novacron.gateway.ollama.prompt import parse_ollama
from novacron.gateway.openai.chat import parse_chat
from novacron.gateway.openai.completions import parse_completion
from novacron.gateway.openai.schema import ChatBody, CompletionBody
from novacron.gateway.recording import Recording

Kind = Literal["chat", "completion"]


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is JSON. `arrival_s` is Unix time."""

    kind: Kind
    form: Form
    body: bytes
    seed: int
    call_id: str
    request_id: str
    model: str
    created: int
    nonce: str
    arrival_s: float
    variant: str
    warnings: tuple[str, ...]
    tenant: str
    is_operator: bool
    weight: float
    priority: int
    account: Account


_decode = msgspec.msgpack.Decoder(RecordedRequest).decode


def record(origin: CallOrigin, asked: Asked, seed: int, arrival_s: float) -> bytes:
    caller = origin.caller
    body = asked.body
    return msgspec.msgpack.encode(
        RecordedRequest(
            kind="chat" if isinstance(body, ChatBody) else "completion",
            form=asked.form,
            body=body.model_dump_json(exclude_unset=True, by_alias=True).encode(),
            seed=seed,
            call_id=origin.call_id,
            request_id=origin.request_id,
            model=origin.model,
            created=origin.created,
            nonce=origin.nonce,
            arrival_s=arrival_s,
            variant=origin.variant,
            warnings=origin.warnings,
            tenant=caller.tenant,
            is_operator=caller.is_operator,
            weight=caller.weight,
            priority=caller.priority,
            account=origin.account,
        )
    )


def read(data: bytes) -> RecordedRequest:
    return _decode(data)


def call_of(
    request: RecordedRequest,
    tokenizer: Tokenizer,
    context_length: int,
    arrival_time_s: float,
    record: Recording,
) -> NativeCall:
    """`context_length`: the model's. `arrival_time_s`: of time.monotonic(), here."""
    origin = CallOrigin(
        call_id=request.call_id,
        request_id=request.request_id,
        model=request.model,
        created=request.created,
        nonce=request.nonce,
        arrival_time_s=arrival_time_s,
        variant=request.variant,
        warnings=request.warnings,
        caller=Caller(request.tenant, request.is_operator, request.weight, request.priority),
        account=request.account,
        record=record,
    )
    data = request.body
    if request.form == "native":
        is_chat = request.kind == "chat"
        native_body = (NativeChatBody if is_chat else NativeCompletionBody).model_validate_json(
            data
        )
        return native_call(native_body, origin, tokenizer)
    if request.kind == "completion":
        text = parse_completion(CompletionBody.model_validate_json(data), origin, tokenizer)
        return NativeCall(text, None, False)
    body = ChatBody.model_validate_json(data)
    match request.form:
        case "text" | "raw" as form:
            chat = parse_ollama(body, origin, tokenizer, is_text=True, is_raw=form == "raw")
        case "messages":
            chat = parse_chat(body, origin, tokenizer, context_length)
        case _:
            chat = parse_chat(body, origin, tokenizer)
    return NativeCall(chat, None, False)
