"""The arrays of a step as an order to ranks on other hosts, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from novacron.executor.hosts.orders import RunStep
from novacron.runner.step_arrays import StepArrays


def order_of(
    arrays: StepArrays,
    zeroed: tuple[int, ...],
    *,
    with_tokens: bool = False,
    places: Sequence[int] = (),
    filled: tuple[int, ...] = (),
) -> RunStep:
    """Stages after the first need no tokens."""
    return RunStep(
        num_tokens=len(arrays.token_ids_T),
        num_requests=len(arrays.lengths_R),
        rows=np.ascontiguousarray(arrays.rows_R3).tobytes(),
        tables=arrays.block_tables_RB.astype(np.int32).tobytes(),
        zeroed=zeroed,
        token_ids=arrays.token_ids_T.astype(np.int32).tobytes() if with_tokens else b"",
        places=tuple(places),
        filled=filled,
    )


def arrays_of(order: RunStep, block_size: int) -> StepArrays:
    """The same arrays; tokens that were not sent are 0."""
    tokens, requests = order.num_tokens, order.num_requests
    tables = np.frombuffer(order.tables, np.int32).reshape(requests, -1)
    token_ids = np.zeros(tokens, np.int64)
    if order.token_ids:
        token_ids[:] = np.frombuffer(order.token_ids, np.int32)
    arrays = StepArrays(
        token_ids_T=token_ids,
        positions_T=np.empty(tokens, np.int64),
        slots_T=np.empty(tokens, np.int64),
        lengths_R=np.empty(requests, np.int64),
        rows_R3=np.frombuffer(order.rows, np.int64).reshape(requests, 3),
        block_tables_RB=tables.astype(np.int64),
    )
    arrays.fill_in_places(block_size)
    return arrays
