"""What rank 0 and the other ranks of a host say to each other, beside what the kernels exchange.

The tensors of a step lie in memory that they share: rank 0 fills it in and says how much of it
counts. So the other ranks know nothing of requests.
"""

from __future__ import annotations

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig


class StageOfHost(msgspec.Struct, frozen=True):
    """The stage whose slices the ranks of a host are; stages end before the layers `stops`.
    `num_places`: steps whose hidden states, handed to it, may lie there at once."""

    index: int
    stops: tuple[int, ...]
    num_places: int


class RankArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank other than 0 is started with, as JSON. `descriptor` is that of the memory they
    share, `socket` that of the connection to rank 0. With a `stage`, ranks are those of the stage
    alone, counted from 0."""

    model: ModelConfig
    cache: CacheConfig
    scheduler: SchedulerConfig
    model_path: str
    rank: int
    num_ranks: int
    num_threads: int
    num_blocks: int
    max_model_len: int
    descriptor: int
    socket: int
    stage: StageOfHost | None = None


class RunStep(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Compute the hidden states of the step that lies in the shared memory, and then, if `places`
    are named, the logits after these."""

    num_tokens: int
    num_requests: int
    num_blocks: int
    places: tuple[int, ...]


class ComputeLogits(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Compute logits again, after other places of the last step."""

    places: tuple[int, ...]


class BeginAnew(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Forget the step that was cut off. From now on this is the group of ranks numbered `epoch`."""

    epoch: int
    meeting_point: str  # for torch.distributed


ToRank = RunStep | ComputeLogits | BeginAnew


class RankReady(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The rank has its weights, of a checkpoint with this digest."""

    digest: str


class RankFailed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """It cannot load them. `kind` is the class of the error in errors.py."""

    kind: str
    message: str


class Begun(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The rank has left what it was doing, and has done what the group `epoch` begins with."""

    epoch: int


FromRank = RankReady | RankFailed | Begun
