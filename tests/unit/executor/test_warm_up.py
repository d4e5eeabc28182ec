from __future__ import annotations

import pytest

from novacron.executor.warm_up import warm_up
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput


class RecordingRunner:
    def __init__(self) -> None:
        self.steps: list[SchedulerOutput] = []
        self.drafted: list[int] = []

    def draft(self, step: SchedulerOutput) -> DraftOutput:
        assert step.drafting
        self.drafted.append(step.step)
        return DraftOutput(step.step, ((0,),))

    def execute(self, step: SchedulerOutput) -> ModelRunnerOutput:
        self.steps.append(step)
        return ModelRunnerOutput(step.step, ())


@pytest.mark.parametrize("is_drafting", [False, True])
@pytest.mark.parametrize(("max_model_len", "block_size"), [(4096, 16), (3, 16), (4096, 8), (1, 8)])
def test_stays_within_one_block_and_leaves_nothing(
    max_model_len: int, block_size: int, is_drafting: bool
) -> None:
    runner = RecordingRunner()
    warm_up(
        runner,  # type: ignore[arg-type]
        max_model_len=max_model_len,
        block_size=block_size,
        is_drafting=is_drafting,
    )
    introduced = {new.request_id for step in runner.steps for new in step.new_requests}
    finished = {request_id for step in runner.steps for request_id in step.finished_ids}
    assert introduced == finished
    for step in runner.steps:
        for part in step.scheduled:
            assert part.start + part.num_tokens <= min(max_model_len, block_size)
    assert bool(runner.steps) == (max_model_len > 1)
    assert len({step.step for step in runner.steps}) == len(runner.steps), "steps have numbers"
    assert bool(runner.drafted) == (is_drafting and max_model_len > 1)
