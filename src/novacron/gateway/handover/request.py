"""The request of a native call as its record has it, and the call made of it again."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from novacron.accounts.quota import Account
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.cache_scope import Caller
from novacron.gateway.calls import CallOrigin
from novacron.gateway.native.replies import NativeBody, NativeCall, native_call
from novacron.gateway.native.schema import NativeChatBody, NativeCompletionBody
from novacron.gateway.recording import Recording

Kind = Literal["chat", "completion"]
_BODIES: Final[dict[Kind, type[NativeBody]]] = {
    "chat": NativeChatBody,
    "completion": NativeCompletionBody,
}


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is JSON. `arrival_s` is Unix time."""

    kind: Kind
    body: bytes
    seed: int
    call_id: str
    request_id: str
    model: str
    created: int
    arrival_s: float
    variant: str
    warnings: tuple[str, ...]
    tenant: str
    is_operator: bool
    weight: float
    priority: int
    account: Account


_decode = msgspec.msgpack.Decoder(RecordedRequest).decode


def record(origin: CallOrigin, body: NativeBody, seed: int, arrival_s: float) -> bytes:
    caller = origin.caller
    return msgspec.msgpack.encode(
        RecordedRequest(
            kind="chat" if isinstance(body, NativeChatBody) else "completion",
            body=body.model_dump_json(exclude_unset=True).encode(),
            seed=seed,
            call_id=origin.call_id,
            request_id=origin.request_id,
            model=origin.model,
            created=origin.created,
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
    arrival_time_s: float,
    record: Recording,
) -> NativeCall:
    """`arrival_time_s`: of time.monotonic(), here."""
    origin = CallOrigin(
        call_id=request.call_id,
        request_id=request.request_id,
        model=request.model,
        created=request.created,
        arrival_time_s=arrival_time_s,
        variant=request.variant,
        warnings=request.warnings,
        caller=Caller(request.tenant, request.is_operator, request.weight, request.priority),
        account=request.account,
        record=record,
    )
    body = _BODIES[request.kind].model_validate_json(request.body)
    return native_call(body, origin, tokenizer)
