"""RequestState: the mutable half of a Request. It exists only inside the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from novacron.kv_cache.kv_cache_manager import BlockTable
from novacron.records.request import Request
from novacron.scheduler.guesser import DraftProgress, Guesser
from novacron.scheduler.scheduler_totals import ClassTotals, SchedulerTotals
from novacron.scheduler.share_account import Account
from novacron.scheduler.stopping import StopConditions


class RequestStatus(Enum):
    WAITING = auto()  # new, or preempted; holds no blocks
    LOADING = auto()  # a part of its prefix is on its way from a tier; holds what is there of it
    RUNNING = auto()  # part of every step; ranks hold its tokens and block table
    FINISHED = auto()  # its final output has been given


@dataclass(eq=False, slots=True)
class RequestState:
    """One live request.

    `token_ids` are prompt and output so far, the first `num_computed_tokens` of which have their KV
    in `blocks`, and the first `num_planned_tokens` of which have, or get it by the `num_in_flight`
    steps that are being computed. There are no phases: a request is behind by some tokens, and
    each step lets it catch up. `arrival_index` counts requests in the order of Scheduler.add.
    """

    request: Request
    arrival_index: int
    token_ids: list[int]
    blocks: BlockTable
    stop_conditions: StopConditions
    status: RequestStatus = RequestStatus.WAITING
    num_computed_tokens: int = 0
    num_planned_tokens: int = 0
    num_in_flight: int = 0
    has_failed: bool = False
    num_cached_tokens: int = 0  # found in the prefix cache when it first ran
    first_scheduled_time_s: float | None = None
    num_prompt_logprobs: int = 0  # positions sent so far
    has_output: bool = False  # something has been sent
    guesser: Guesser | None = None  # from when speculation first looks at it
    num_offered_blocks: int = 0  # computed or found, and offered to the tiers since it started
    loads_in_flight: int = 0  # that it waits for
    has_loaded: bool = False  # since it last ran: what is still missing is computed
    has_looked_up: bool = False  # shared tiers have been asked for its prefix
    draft_progress: DraftProgress | None = None  # the same, with a draft model
    level: int = 0  # with fair shares: the priority that it runs with; lower is more urgent
    totals: ClassTotals = field(default_factory=ClassTotals)  # of its priority
    engine_totals: SchedulerTotals = field(default_factory=SchedulerTotals)  # that it counts in
    account: Account = field(default_factory=Account)  # with fair shares: its tenant's
    num_given_tokens: int = 0  # with fair shares: those that it came with
    num_charged_tokens: int = 0  # of these, that its tenant has paid for
    num_reserved_tokens: int = 0  # output that is expected yet
    due_s: float = 0.0  # with deadlines: when its first token is
    left_out_since_s: float | None = None  # of steps, for what is more urgent

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def can_be_shed(self) -> bool:
        """It has not begun, here or elsewhere."""
        return self.first_scheduled_time_s is None and not self.request.output_token_ids

    @property
    def can_be_guessed(self) -> bool:
        """Whether tokens are wanted, and nothing that needs logits of the prompt."""
        return self.request.pooling is None and self.request.sampling.prompt_logprobs is None

    @property
    def needs_whole_prompt(self) -> bool:
        """Whether a result depends on computing the prompt from its start, cached or not."""
        if self.request.pooling == "mean":
            return True
        wanted = self.request.sampling.prompt_logprobs is not None
        return wanted and self.num_prompt_logprobs < self.num_prompt_tokens - 1
