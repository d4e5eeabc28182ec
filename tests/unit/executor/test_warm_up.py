from __future__ import annotations

import pytest

from novacron.executor.warm_up import warm_up
from novacron.records.step import ModelRunnerOutput, SchedulerOutput


class RecordingRunner:
    def __init__(self) -> None:
        self.steps: list[SchedulerOutput] = []

    def execute(self, step: SchedulerOutput) -> ModelRunnerOutput:
        self.steps.append(step)
        return ModelRunnerOutput(step.step, ())


@pytest.mark.parametrize(("max_model_len", "block_size"), [(4096, 16), (3, 16), (4096, 8), (1, 8)])
def test_stays_within_one_block_and_leaves_nothing(max_model_len: int, block_size: int) -> None:
    runner = RecordingRunner()
    warm_up(runner, max_model_len=max_model_len, block_size=block_size)  # type: ignore[arg-type]
    introduced = {new.request_id for step in runner.steps for new in step.new_requests}
    finished = {request_id for step in runner.steps for request_id in step.finished_ids}
    assert introduced == finished
    for step in runner.steps:
        for part in step.scheduled:
            assert part.start + part.num_tokens <= min(max_model_len, block_size)
    assert bool(runner.steps) == (max_model_len > 1)
