"""What of prompts a replica is believed to have cached, from what was sent to it. Pure.

Prompts are chains of block hashes, as in the engine's own cache. A chain that is sent is used from
its end to its begin, so what leaves first is the end of the chain used longest ago, and whatever
block is known, those before it are. That is how an engine's cache behaves, but for tiers and
eviction by other rules: it is an approximation, put right where an engine reports less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from novacron.records.block import BlockHash, block_hashes, root_hash

MOST_BLOCKS: Final = 512  # of a prompt: what lies behind them hardly changes a decision


def prompt_chain(
    token_ids: Sequence[int], block_size: int, salt: str, begin: Sequence[BlockHash] = ()
) -> list[BlockHash]:
    """Hashes of the full blocks, up to MOST_BLOCKS. `begin` are those of the first blocks.

    Only for comparing prompts of one model: its version is left out.
    """
    chain = list(begin)
    key = root_hash(model_version="", kv_dtype="", block_size=block_size, salt=salt)
    if chain:
        key = chain[-1]
    further = token_ids[len(chain) * block_size : MOST_BLOCKS * block_size]
    return [*chain, *block_hashes(key, further, block_size)]


class KnownPrefixes:
    """Of one replica, at most `capacity` blocks."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used: OrderedDict[BlockHash, int] = OrderedDict()  # when; used longest ago first
        self._time = 0

    def __len__(self) -> int:
        return len(self._used)

    def num_known(self, chain: Sequence[BlockHash]) -> int:
        """How many blocks of the chain's begin are known."""
        used = self._used
        if not chain or chain[0] not in used:
            return 0
        low, high = 1, len(chain)
        while low < high:  # what lies before a known block is known
            middle = (low + high + 1) // 2
            if chain[middle - 1] in used:
                low = middle
            else:
                high = middle - 1
        return low

    def last_use(self, key: BlockHash) -> int:
        """When it was used last; 0: it is not known."""
        return self._used.get(key, 0)

    def use(self, chain: Sequence[BlockHash]) -> None:
        """The replica computes, or finds, these blocks now."""
        used = self._used
        for key in reversed(chain):
            self._time += 1
            used[key] = self._time
            used.move_to_end(key)
        while len(used) > self._capacity:
            used.popitem(last=False)

    def forget_until(self, time: int) -> None:
        """What was last used at this time has gone from the replica, so older blocks have too."""
        used = self._used
        while used and next(iter(used.values())) <= time:
            used.popitem(last=False)

    def resize(self, capacity: int) -> None:
        self._capacity = capacity

    def clear(self) -> None:
        self._used.clear()
