"""StepPlan: a step while it is being put together."""

from __future__ import annotations

from dataclasses import dataclass, field

from novacron.records.step import NewRequest, ScheduledTokens
from novacron.scheduler.request_state import RequestState


@dataclass(slots=True)
class StepPlan:
    """The step that `Scheduler.schedule` is putting together. All running requests before `place`
    have been looked at."""

    num_tokens: int
    num_requests_left: int  # of those that run already
    place: int = 0
    is_complete: bool = False  # whoever comes next must not be asked
    new_requests: list[NewRequest] = field(default_factory=list)
    parts: list[ScheduledTokens] = field(default_factory=list)
    states: list[RequestState] = field(default_factory=list)  # of the parts
    num_tokens_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_tokens_left = self.num_tokens

    def add(self, state: RequestState, part: ScheduledTokens) -> None:
        """The next tokens of the running request at `place`."""
        self.place += 1
        self.states.append(state)
        self.num_tokens_left -= part.num_tokens
        self.parts.append(part)
