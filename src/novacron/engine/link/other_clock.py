"""Messages between hosts say times by the clock of where they are read. Pure.

time.monotonic() means nothing on another host; the difference is learnt once, from a Welcome. What
the way took is in it: some milliseconds at most where a request takes seconds.
"""

from __future__ import annotations

from msgspec.structs import replace

from novacron.records.output import EngineOutput
from novacron.records.request import Request


class OtherClock:
    """`ahead_s`: by how much the other host's clock is ahead of ours."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s

    def requests_there(self, requests: tuple[Request, ...]) -> tuple[Request, ...]:
        return tuple(
            replace(request, arrival_time_s=request.arrival_time_s + self._ahead_s)
            for request in requests
        )

    def outputs_here(self, outputs: tuple[EngineOutput, ...]) -> tuple[EngineOutput, ...]:
        """Few outputs say times: the others stay as they are."""
        if all(output.first_scheduled_time_s is None for output in outputs):
            return outputs
        return tuple(map(self._output_here, outputs))

    def _output_here(self, output: EngineOutput) -> EngineOutput:
        time_s = output.first_scheduled_time_s
        if time_s is None:
            return output
        return replace(output, first_scheduled_time_s=time_s - self._ahead_s)
