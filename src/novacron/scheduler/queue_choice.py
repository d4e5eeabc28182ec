"""Which queue a scheduling policy is."""

from __future__ import annotations

from collections.abc import Callable

from novacron.config.scheduler import SchedulerConfig
from novacron.scheduler.deadline_queue import DeadlineQueue
from novacron.scheduler.fair_queue import FairQueue
from novacron.scheduler.standing_queues import FCFSQueue, PriorityQueue
from novacron.scheduler.waiting_queue import WaitingQueue


def build_queue(config: SchedulerConfig, clock: Callable[[], float]) -> WaitingQueue:
    match config.scheduling_policy:
        case "fcfs":
            return FCFSQueue()
        case "priority":
            return PriorityQueue()
        case "deadline":
            return DeadlineQueue(clock)
    chunked = config.enable_chunked_prefill
    return FairQueue(
        ageing_s=config.priority_ageing,
        chunk_tokens=config.shared_chunk_tokens if chunked else 0,
        clock=clock,
    )
