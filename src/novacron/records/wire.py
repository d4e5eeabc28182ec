"""Messages between an engine client and an engine process: msgpack, one union each way.

The first message of an engine carries WIRE_VERSION; a client refuses another version.
"""

from __future__ import annotations

import msgspec

from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineOutput, EngineStats, ModelSpec
from novacron.records.request import Request

WIRE_VERSION = 4


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=True):
    requests: tuple[Request, ...]


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=True):
    request_ids: tuple[str, ...]


class Score(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An answer of another variant, for the watch over quality; without a watch it is dropped.
    Those of the tokens that stand from `first_scored` on are the answer."""

    token_ids: tuple[int, ...]
    first_scored: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Something about the KV cache. An Answer with the same number follows."""

    number: int
    order: CacheOrder


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End the process. Running requests end with ABORT; draining is the client's business."""


ToEngine = Submit | Abort | Score | Ask | Shutdown


class Loading(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Start-up has reached `phase`; `fraction` of it is done."""

    phase: str
    fraction: float


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    wire_version: int
    spec: ModelSpec


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Start-up failed for a reason that a restart would not cure. `kind` is the error class."""

    kind: str
    message: str


class Outputs(msgspec.Struct, frozen=True, array_like=True, tag=True):
    outputs: tuple[EngineOutput, ...]
    stats: EngineStats


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    answer: CacheAnswer


FromEngine = Loading | Ready | Failed | Outputs | Answer

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
