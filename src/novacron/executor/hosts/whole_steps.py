"""WholeSteps: executors over hosts that have one step at a time computed, by all at once."""

from __future__ import annotations

from novacron.executor.executor import StepByStep
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.records.step import ModelRunnerOutput, SchedulerOutput


class WholeSteps(StepByStep, OverHosts):
    """The part of OverHosts that says how."""

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        with self._computing():
            self._begin_step(scheduler_output)
            result = self._runner.execute(scheduler_output)
            self._end_step(scheduler_output, result)
        if scheduler_output.scheduled:
            self._traffic.see_step()
        return result

    def _forget_steps(self) -> None:
        self._computed = None
