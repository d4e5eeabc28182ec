"""What rank 0 and the other ranks of a host say to each other, beside what the kernels exchange.

The tensors of a step lie in memory that they share: rank 0 fills it in and says how much of it
counts. So the other ranks know nothing of requests.
"""

from __future__ import annotations

import msgspec

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig


class RankArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank other than 0 is started with, as JSON. `descriptor` is that of the memory they
    share, `socket` that of the connection to rank 0. Of several stages, the rank takes steps over
    from the pipe `entry`, and hands them on to the pipes `exits`, if it is to."""

    model: ModelConfig
    cache: CacheConfig
    scheduler: SchedulerConfig
    model_path: str
    rank: int
    num_threads: int
    num_blocks: int
    max_model_len: int
    descriptor: int
    socket: int
    meeting_point: str  # for torch.distributed
    entry: int | None = None
    exits: tuple[int, ...] = ()


class RunStep(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Compute the hidden states of the step that lies in the shared memory, and then, if `places`
    are named, the logits after these."""

    num_tokens: int
    num_requests: int
    num_blocks: int
    places: tuple[int, ...]


class RunStage(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Compute this rank's stage of the step whose tensors lie in the place of that number."""

    place: int
    num_tokens: int
    num_requests: int
    num_blocks: int


class ComputeLogits(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Compute logits again, after other places of the last step; of several stages, after these
    rows of what the last stage has left."""

    places: tuple[int, ...]


class ZeroBlocks(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Zero these blocks before the next step."""

    block_ids: tuple[int, ...]


ToRank = RunStep | RunStage | ComputeLogits | ZeroBlocks


class RankReady(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The rank has its weights."""


class RankFailed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """It cannot load them. `kind` is the class of the error in errors.py."""

    kind: str
    message: str


FromRank = RankReady | RankFailed
