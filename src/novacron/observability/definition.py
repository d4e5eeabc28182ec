"""How a metric is defined, and the form of what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# From one step of a tiny model on a laptop to a long queue before a large one.
SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0,
)  # fmt: skip
TOKENS = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
)  # fmt: skip

Kind = Literal["counter", "gauge", "histogram"]
Sample = tuple[tuple[str, ...], float]  # the values of the definition's labels, and the number
Values = dict[str, list[Sample]]  # by names of definitions


@dataclass(frozen=True)
class Definition:
    """Counters are named without `_total`, which the text format adds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def gauge(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "gauge", help, labels)


def counter(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "counter", help, labels)


def histogram(name: str, help: str, buckets: tuple[float, ...] = SECONDS) -> Definition:
    return Definition(name, "histogram", help, (), buckets)


def single(value: float) -> list[Sample]:
    """The only sample of a metric without labels."""
    return [((), value)]
