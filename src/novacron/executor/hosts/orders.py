"""What the rank that leads several hosts says to the others, and they to it.

Each is the payload of a message of kind ORDER, as msgpack. Hidden states, and what slices add up,
are messages of their own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
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
from novacron.parallel.traffic import Traffic
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import TierSpec
from novacron.records.parallel_stats import LinkStats


class Join(msgspec.Struct, frozen=True, kw_only=True, tag=0):
    """Become `rank` of those that the sizes in `model` tell, with the epoch of this message; where
    stages have several ranks each, become the stage of that number. `owner` is the server that it
    belongs to; `clock_ns` the time of the group."""

    owner: str
    rank: int
    model: ModelConfig
    cache: CacheConfig
    scheduler: SchedulerConfig
    compression: Compression
    timeout_s: float
    clock_ns: int


class Attach(msgspec.Struct, frozen=True, tag=1):
    """This connection is for tensors."""


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=2):
    """Load the layers of your stage, where stages end before the layers `stops`; without, your
    slice of all, or all. A rank connects to those at `hosts`, by their numbers, and is connected to
    by those that have these `keys`; the leader is not among them."""

    num_blocks: int
    max_model_len: int
    stops: tuple[int, ...] = ()
    hosts: dict[int, str] = {}
    keys: dict[int, str] = {}


class RunStep(msgspec.Struct, frozen=True, tag=3):
    """Compute your part of the step. `rows` and `tables` are those of StepArrays, as int64 and as
    int32; `token_ids`, int32, are for slices and rows; `places`, after which logits are wanted, for
    slices. Zero the blocks `zeroed` before, then take in `filled`, which follow as tensors."""

    num_tokens: int
    num_requests: int
    rows: bytes
    tables: bytes
    zeroed: tuple[int, ...]
    token_ids: bytes = b""
    places: tuple[int, ...] = ()
    filled: tuple[int, ...] = ()


class Leave(msgspec.Struct, frozen=True, tag=4):
    """The group is over."""


class Meet(msgspec.Struct, frozen=True, tag=5):
    """All ranks have their part: connect to each other. Slices measure together."""


class ComputeLogits(msgspec.Struct, frozen=True, tag=6):
    """Compute logits again, after other places of the last step."""

    places: tuple[int, ...]


class OpenTiers(msgspec.Struct, frozen=True, tag=7):
    """Open KV tiers for your part of all blocks, which agree in `kv_identity`. A block takes
    `block_bytes` on all hosts together."""

    kv_identity: str
    block_bytes: int


class MoveBlocks(msgspec.Struct, frozen=True, tag=8):
    """Move your parts of blocks between these tiers and the cache, beside the steps."""

    orders: BlockOrders


class GiveUp(msgspec.Struct, frozen=True, tag=9):
    """The next step writes to these blocks: what they hold is not stored any more."""

    block_ids: tuple[int, ...]


class CloseTiers(msgspec.Struct, frozen=True, tag=10):
    """Store what still has to be, but not for long: the group is about to end."""


class AskWhose(msgspec.Struct, frozen=True, tag=11):
    """Tell which parts of blocks your tiers have of a scope."""

    scope: bytes


ToRank = (
    Join
    | Attach
    | Load
    | RunStep
    | Leave
    | Meet
    | ComputeLogits
    | OpenTiers
    | MoveBlocks
    | GiveUp
    | CloseTiers
    | AskWhose
)


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag=0):
    """What there is on the host, which is called `host`. `bytes_per_s`: how quickly weights are
    read there. `computes`: what must be alike on all hosts for every number to be that of one.
    `follows_a_crash`: the process that had this place before has crashed, or was killed."""

    host: str
    memory: DeviceMemory
    bytes_per_s: float
    computes: str
    follows_a_crash: bool = False


class Loading(msgspec.Struct, frozen=True, tag=1):
    fraction: float


class PartReady(msgspec.Struct, frozen=True, tag=2):
    """It has its part, of a checkpoint with this digest."""

    digest: str


class PartFailed(msgspec.Struct, frozen=True, tag=3):
    """It cannot have them. `kind` is the class of the error in errors.py."""

    kind: str
    message: str


class Busy(msgspec.Struct, frozen=True, tag=4):
    """Another server uses this rank; it becomes free when that ends."""


class Fenced(msgspec.Struct, frozen=True, tag=5):
    """The message was of a group that this rank is not in, or not any more."""


class Report(msgspec.Struct, frozen=True, tag=6):
    """What it has counted so far, and its links to the ranks above it, by their numbers. `others`:
    the same of further ranks of its stage."""

    traffic: Traffic
    links: dict[int, LinkStats] = {}
    others: tuple[Traffic, ...] = ()


class TiersOpen(msgspec.Struct, frozen=True, tag=7):
    """The KV tiers that the host so called has room for, and what they hold already: the first
    request is to find it."""

    host: str
    specs: tuple[TierSpec, ...]
    found: BlockNews | None = None


class Moved(msgspec.Struct, frozen=True, tag=8):
    """What came of orders to move blocks, and what tiers hold at first."""

    news: BlockNews


class TiersClosed(msgspec.Struct, frozen=True, tag=9):
    """Nothing more will be stored."""


class OfScope(msgspec.Struct, frozen=True, tag=10):
    """These; or why a tier cannot tell."""

    blocks: tuple[TierKeys, ...]
    error: str = ""


FromRank = (
    Offer
    | Loading
    | PartReady
    | PartFailed
    | Busy
    | Fenced
    | Report
    | TiersOpen
    | Moved
    | TiersClosed
    | OfScope
)

_encoder: Final = msgspec.msgpack.Encoder()
_to_rank: Final = msgspec.msgpack.Decoder(ToRank)
_from_rank: Final = msgspec.msgpack.Decoder(FromRank)


def encode(
    order: ToRank | FromRank,
    deadline_ns: int = NO_DEADLINE,
    *,
    priority: Priority = Priority.CONTROL,
) -> tuple[TensorHeader, bytes]:
    """Header and payload of a message with it."""
    payload = _encoder.encode(order)
    header = TensorHeader(
        kind=Kind.ORDER,
        priority=priority,
        dtype=Dtype.BYTES,
        shape=(len(payload),),
        deadline_ns=deadline_ns,
    )
    return header, payload


def to_rank(payload: Bytes) -> ToRank:
    """Raises msgspec.MsgspecError."""
    order: ToRank = _to_rank.decode(payload)
    return order


def from_rank(payload: Bytes) -> FromRank:
    """Raises msgspec.MsgspecError."""
    order: FromRank = _from_rank.decode(payload)
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
