"""What rank 0 says to the other ranks of a pipeline, beside what they hand on to each other."""

from __future__ import annotations

import msgspec


class RunStage(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Compute this rank's stage of the step whose tensors lie in the place of that number."""

    place: int
    num_tokens: int
    num_requests: int
    num_blocks: int


class ComputeStageLogits(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Compute logits after these rows of what the last stage has left."""

    rows: tuple[int, ...]


class BeginStage(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Forget the steps that were cut off. From now on this is the group of ranks numbered `epoch`.
    With the message come the rank's pipes: `num_exits` that it hands steps on to, and then, beyond
    the first stage, the one that it takes them over from."""

    epoch: int
    meeting_point: str  # for torch.distributed
    num_exits: int


class MakeWhole(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """All ranks have begun the group `epoch`: let those of this rank's stage meet again."""

    epoch: int


ToStage = RunStage | ComputeStageLogits | BeginStage | MakeWhole
