"""Texts like those that the bundled model answers, for methods that have to see some: questions of
every task with their answers, none of them from the test."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from novacron.demo.examples import Message
from novacron.demo.tasks import TASKS, training_example

_SEED = "calibration"


def calibration_chats(per_task: int) -> Iterator[tuple[Message, ...]]:
    """The same for the same number."""
    for name, task in TASKS.items():
        rng = Random(f"{_SEED}/{name}")
        for _ in range(0 if task.test_only else per_task):
            example = training_example(name, rng)
            yield (*example.messages, Message("assistant", example.answer))
