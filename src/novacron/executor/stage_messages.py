"""What rank 0 says to the other ranks of a pipeline, beside what they hand on to each other."""

from __future__ import annotations

import msgspec

from novacron.executor.rank_messages import RankArguments


class StageArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank other than 0 is started with, as JSON. It takes steps over from the pipe `entry`,
    and hands them on to the pipes `exits`, if it is to."""

    rank: RankArguments
    meeting_point: str  # for torch.distributed
    entry: int | None = None
    exits: tuple[int, ...] = ()


class RunStage(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Compute this rank's stage of the step whose tensors lie in the place of that number."""

    place: int
    num_tokens: int
    num_requests: int
    num_blocks: int


class ComputeStageLogits(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Compute logits after these rows of what the last stage has left."""

    rows: tuple[int, ...]


ToStage = RunStage | ComputeStageLogits
