"""Messages between an engine client and an engine process: msgpack, one union each way.

The first message of an engine carries WIRE_VERSION; a client refuses another version. Where the
engine is on another host, the same messages travel over a link to the process that keeps it there
(engine/link), and beside them those of the link itself: ToHost and FromHost.
"""

from __future__ import annotations

import msgspec

from novacron.config.engine import EngineConfig
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineOutput, EngineStats, ModelSpec
from novacron.records.request import Request

WIRE_VERSION = 5


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


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Start an engine for me. `server` names the process that asks, which takes the place of its
    own earlier engine; `timeout_s`: after so much silence either end gives the other up."""

    server: str
    timeout_s: float
    config: EngineConfig


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A sign of life of the client. `rank_pids`: processes of the host to look after, as the engine
    has told them. `sent_s` is told back."""

    rank_pids: tuple[int, ...] = ()
    sent_s: float = 0.0


class Kill(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Kill the engine process. Ended follows."""


class Bye(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The client wants nothing more; an engine that still runs is killed."""


ToHost = Hello | Alive | Kill | Bye


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The host is the client's from now on. `clock_s` is its time.monotonic()."""

    host_name: str
    clock_s: float


class Rejected(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """There will be no engine. `is_busy`: another server has the host, which may pass. `kind` is
    the error class."""

    kind: str
    message: str
    is_busy: bool = False


class VitalSigns(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A sign of life of the host, and what it sees of the engine: see engine/heart_monitor.
    `heard_s` is the `sent_s` of the newest Alive, which came `held_s` ago."""

    num_beats: int
    num_stuck: int
    stopped_pids: tuple[int, ...] = ()
    lost_ranks: int = 0
    heard_s: float = 0.0
    held_s: float = 0.0


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The engine process has ended, and all that it had sent went before."""

    exit_code: int


class Fenced(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What was sent belongs to an epoch that is over, and was dropped."""


FromHost = Welcome | Rejected | VitalSigns | Ended | Fenced

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
decode_to_host = msgspec.msgpack.Decoder(ToHost).decode
decode_from_host = msgspec.msgpack.Decoder(FromHost).decode
