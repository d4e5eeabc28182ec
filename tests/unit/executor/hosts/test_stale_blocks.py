"""What other hosts get before a long step: no more and no less than it reads."""

from __future__ import annotations

import random

import numpy as np

from novacron.executor.hosts.stale_blocks import StaleBlocks
from novacron.runner.step_arrays import StepArrays

BLOCK_SIZE = 4


def step_of(*parts: tuple[int, int, list[int]]) -> StepArrays:
    """Of (start, number of tokens, blocks) each."""
    counts = [count for _, count, _ in parts]
    firsts, tokens = np.cumsum([0, *counts])[:-1], sum(counts)
    width = max(len(blocks) for _, _, blocks in parts)
    step = StepArrays(
        token_ids_T=np.zeros(tokens, np.int64),
        positions_T=np.zeros(tokens, np.int64),
        slots_T=np.zeros(tokens, np.int64),
        lengths_R=np.zeros(len(parts), np.int64),
        rows_R3=np.array(
            [(first, start, count) for first, (start, count, _) in zip(firsts, parts, strict=True)]
        ),
        block_tables_RB=np.array(
            [blocks + blocks[:1] * (width - len(blocks)) for _, _, blocks in parts]
        ),
    )
    step.fill_in_places(BLOCK_SIZE)
    return step


def test_what_a_step_reads_is_sent_once() -> None:
    stale = StaleBlocks(20, BLOCK_SIZE)
    stale.see_step(step_of((0, 6, [3, 4])))
    stale.see_filled([7, 8])
    assert stale.take_read(step_of((0, 8, [5, 6]), (4, 8, [7, 9, 10]))) == (7,)
    assert stale.take_read(step_of((6, 9, [3, 4, 11, 12]), (5, 1, [7, 8]))) == (3, 4, 8)
    assert stale.take_read(step_of((15, 8, [3, 4, 11, 12, 13, 14]))) == ()


def test_blocks_that_are_written_anew_are_not_sent() -> None:
    stale = StaleBlocks(20, BLOCK_SIZE)
    stale.see_step(step_of((0, 8, [3, 4])))
    assert stale.take_read(step_of((0, 8, [3, 4]))) == ()
    assert stale.take_read(step_of((8, 8, [3, 4, 5, 6]))) == ()


def test_others_always_have_what_a_long_step_reads() -> None:
    """Against a model of it: which step wrote each block last, here and elsewhere."""
    rng, here, there = random.Random(0), [0] * 40, [0] * 40
    stale = StaleBlocks(40, BLOCK_SIZE)
    for number in range(1, 400):
        blocks = rng.sample(range(40), 6)
        start, count = rng.randrange(12), rng.randrange(1, 12)
        step = step_of((start, count, blocks))
        written = set((step.slots_T // BLOCK_SIZE).tolist())
        for block in written:
            here[block] = number
        if rng.random() < 0.5:
            stale.see_step(step)
            continue
        read = blocks[: -(-start // BLOCK_SIZE)]
        sent = stale.take_read(step)
        assert set(sent) <= set(read)
        for block in {*sent, *written}:
            there[block] = here[block]
        assert all(there[block] == here[block] for block in read)
