"""What the rank that leads a pipeline over several hosts says to the others, and they to it.

Each is the payload of a message of kind ORDER, as msgpack. Hidden states are messages of their own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig
from novacron.executor.memory_plan import DeviceMemory
from novacron.parallel.messages.activation_codec import Packed
from novacron.parallel.messages.tensor_message import (
    NO_DEADLINE,
    Bytes,
    Compression,
    Dtype,
    Kind,
    Priority,
    TensorHeader,
)


class Join(msgspec.Struct, frozen=True, kw_only=True, tag=0):
    """Become `rank` of a pipeline of so many stages, with the epoch of this message. `owner` is the
    server that it belongs to; `clock_ns` the time of the group."""

    owner: str
    rank: int
    num_stages: int
    model: ModelConfig
    cache: CacheConfig
    scheduler: SchedulerConfig
    compression: Compression
    timeout_s: float
    clock_ns: int


class Attach(msgspec.Struct, frozen=True, tag=1):
    """This connection is for hidden states."""


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=2):
    """Load the layers of your stage: stages end before the layers `stops`. Steps go on to the rank
    at `next_host`, or from the last one back to the first; they come from whoever has the key
    `previous_key`."""

    stops: tuple[int, ...]
    num_blocks: int
    max_model_len: int
    next_host: str
    previous_key: str


class RunStep(msgspec.Struct, frozen=True, tag=3):
    """Compute your stage of the step. `rows` and `tables` are those of StepArrays, as int64 and as
    int32; no tokens, which only the first stage needs. Zero the blocks `zeroed` before."""

    num_tokens: int
    num_requests: int
    rows: bytes
    tables: bytes
    zeroed: tuple[int, ...]


class Leave(msgspec.Struct, frozen=True, tag=4):
    """The group is over."""


ToStage = Join | Attach | Load | RunStep | Leave


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag=0):
    """What there is on the host, which is called `host`. `bytes_per_s`: how quickly weights are
    read there. `computes`: what must be alike on all hosts for every number to be that of one."""

    host: str
    memory: DeviceMemory
    bytes_per_s: float
    computes: str


class Loading(msgspec.Struct, frozen=True, tag=1):
    fraction: float


class StageReady(msgspec.Struct, frozen=True, tag=2):
    """It has its layers, of a checkpoint with this digest."""

    digest: str


class StageFailed(msgspec.Struct, frozen=True, tag=3):
    """It cannot have them. `kind` is the class of the error in errors.py."""

    kind: str
    message: str


class Busy(msgspec.Struct, frozen=True, tag=4):
    """Another server uses this rank; it becomes free when that ends."""


class Fenced(msgspec.Struct, frozen=True, tag=5):
    """The message was of a group that this rank is not in, or not any more."""


FromStage = Offer | Loading | StageReady | StageFailed | Busy | Fenced

_encoder: Final = msgspec.msgpack.Encoder()
_to_stage: Final = msgspec.msgpack.Decoder(ToStage)
_from_stage: Final = msgspec.msgpack.Decoder(FromStage)


def encode(
    order: ToStage | FromStage, deadline_ns: int = NO_DEADLINE
) -> tuple[TensorHeader, bytes]:
    """Header and payload of a message with it."""
    payload = _encoder.encode(order)
    header = TensorHeader(
        kind=Kind.ORDER,
        priority=Priority.CONTROL,
        dtype=Dtype.BYTES,
        shape=(len(payload),),
        deadline_ns=deadline_ns,
    )
    return header, payload


def to_stage(payload: Bytes) -> ToStage:
    """Raises msgspec.MsgspecError."""
    order: ToStage = _to_stage.decode(payload)
    return order


def from_stage(payload: Bytes) -> FromStage:
    """Raises msgspec.MsgspecError."""
    order: FromStage = _from_stage.decode(payload)
    return order


def forward_header(packed: Packed, step: int, layer: int, deadline_ns: int) -> TensorHeader:
    """Of hidden states that go to the stage which begins with `layer`."""
    return TensorHeader(
        kind=Kind.FORWARD,
        priority=Priority.DATA,
        dtype=packed.dtype,
        compression=packed.compression,
        shape=packed.shape,
        step=step,
        layer=layer,
        deadline_ns=deadline_ns,
    )
