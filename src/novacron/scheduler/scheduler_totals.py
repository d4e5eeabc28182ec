"""SchedulerTotals: what a scheduler counts from its start on."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.records.share_stats import CLASSES, ClassStats, ShareStats, class_of


@dataclass
class ClassTotals:
    """Those of one named priority: fields of ClassStats."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    num_preempted: int = 0
    num_shed: int = 0


@dataclass
class SchedulerTotals:
    """Fields of EngineStats of the same names."""

    num_steps: int = 0
    num_preemptions: int = 0
    num_shed: int = 0
    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0


class SharesTotals:
    """By named priority."""

    def __init__(self) -> None:
        self._classes = tuple(ClassTotals() for _ in CLASSES)

    def of(self, priority: int) -> ClassTotals:
        return self._classes[class_of(priority)]

    def stats(self, num_tenants: int) -> ShareStats:
        classes = tuple(ClassStats(**vars(one)) for one in self._classes)
        return ShareStats(classes=classes, num_tenants=num_tenants)
