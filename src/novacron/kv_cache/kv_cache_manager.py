"""KVCacheManager: which blocks hold the KV of which request, and which prefixes are there already.

The scheduler calls it while it plans a step; nothing here touches a tensor. All blocks of a request
are kept until it ends, also those that a sliding window has left behind: a later request may start
with the same prefix.

Source: paged KV from PagedAttention (SOSP 2023); prefix caching as in vLLM v1 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from novacron.kv_cache.block_pool import BlockPool
from novacron.records.block import BlockHash, block_hashes, root_hash


@dataclass(eq=False, slots=True)
class BlockTable:
    """The blocks of one request in order, and what is known about their content.

    `hashes` are those of the request's first full blocks, each computed once in its life; they stay
    when the blocks are freed. Of the blocks held, the first `num_settled` are full, and were
    offered to the pool or taken from it. The first `num_public` belong to a public prefix; the
    request's own blocks, which are those of `scope`, go on from `root`.
    """

    root: BlockHash
    scope: bytes = b""
    block_ids: list[int] = field(default_factory=list)
    hashes: list[BlockHash] = field(default_factory=list)
    num_settled: int = 0
    num_public: int = 0


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """Cached blocks that hold the first `num_tokens` tokens of a request."""

    block_ids: tuple[int, ...] = ()
    num_tokens: int = 0


NO_HIT = PrefixHit()


class KVCacheManager:
    """Hands blocks to requests and shares those with equal content.

    `model_version` and `kv_dtype` go into the identity of every block, together with the salt of
    the request: requests of different salts never see each other's blocks.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        model_version: str,
        kv_dtype: str,
        enable_prefix_caching: bool = True,
    ) -> None:
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._model_version = model_version
        self._kv_dtype = kv_dtype
        self._pool = BlockPool(num_blocks)

    @property
    def num_blocks(self) -> int:
        return self._pool.num_blocks

    @property
    def num_used_blocks(self) -> int:
        return self._pool.num_used

    @property
    def num_cached_blocks(self) -> int:
        return self._pool.num_cached

    @property
    def num_available_blocks(self) -> int:
        """Blocks that `extend` can hand out."""
        return self._pool.num_available

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks `num_tokens` tokens of one request take."""
        return -(-num_tokens // self.block_size)

    def open_table(
        self,
        cache_salt: str,
        token_ids: Sequence[int] = (),
        public_keys: Container[BlockHash] = frozenset(),
        scope: bytes = b"",
    ) -> BlockTable:
        """An empty table for a new request.

        As far as `token_ids` run along a public prefix, whose blocks are in `public_keys`, the
        request shares those blocks whatever its salt; what follows is apart by the salt.
        """
        if not (cache_salt and public_keys):
            return BlockTable(self._root(cache_salt), scope)
        everyones = block_hashes(self._root(""), token_ids, self.block_size)
        public = list(takewhile(public_keys.__contains__, everyones))
        salt = f"{cache_salt}\x00{public[-1].hex()}" if public else cache_salt
        return BlockTable(self._root(salt), scope, hashes=public, num_public=len(public))

    def chain(self, table: BlockTable, token_ids: Sequence[int]) -> list[BlockHash]:
        """The hashes of all full blocks of these tokens."""
        num_full = len(token_ids) // self.block_size
        return [*table.hashes[:num_full], *self._hash_up_to(table, token_ids, num_full)]

    def find_prefix(self, table: BlockTable, token_ids: Sequence[int]) -> PrefixHit:
        """Longest run of full cached blocks that starts `token_ids`, the request's known tokens.

        Leaves the pool unchanged; `adopt` takes the blocks. Stops one token short of the end,
        because the last token must be computed to get its logits.
        """
        if not self.enable_prefix_caching:
            return NO_HIT
        num_full = (len(token_ids) - 1) // self.block_size
        found = self._pool.lookup_all(table.hashes[:num_full])
        if len(found) == min(len(table.hashes), num_full):
            found += self._pool.lookup_all(self._hash_up_to(table, token_ids, num_full))
        return PrefixHit(tuple(found), len(found) * self.block_size)

    def missing_keys(
        self, table: BlockTable, token_ids: Sequence[int], hit: PrefixHit
    ) -> Iterator[BlockHash]:
        """Those of the blocks that would prolong a hit, in order, were they there."""
        if self.enable_prefix_caching:
            num_full = (len(token_ids) - 1) // self.block_size
            yield from table.hashes[len(hit.block_ids) : num_full]
            yield from self._hash_up_to(table, token_ids, num_full)

    def is_cached(self, key: BlockHash) -> bool:
        """Whether a block of the device holds this."""
        return self._pool.lookup(key) is not None

    def reserve(self, count: int) -> list[int]:
        """Blocks that somebody is going to fill from elsewhere; there must be as many available."""
        return self._pool.allocate(count)

    def release_filled(self, block_ids: Sequence[int], keys: Sequence[BlockHash | None]) -> None:
        """Let requests find what reserved blocks have been filled with; None: with nothing. Later
        ones are evicted before those that they build upon."""
        for block_id, key in zip(block_ids, keys, strict=True):
            if key is not None:
                self._pool.register(block_id, key)
        self._pool.free(reversed(block_ids))

    def has_room(self, num_tokens: int, hit: PrefixHit, num_spare_blocks: int) -> bool:
        """Whether a request of `num_tokens` that starts with `hit` could hold all of its blocks
        now, and `num_spare_blocks` would be left."""
        num_new = self.blocks_for(num_tokens) - len(hit.block_ids)
        num_idle_hits = sum(map(self._pool.is_idle, hit.block_ids))
        return num_new + num_spare_blocks <= self._pool.num_available - num_idle_hits

    def adopt(self, table: BlockTable, hit: PrefixHit) -> None:
        """Start an empty table with the blocks that `find_prefix` found in this same step."""
        assert not table.block_ids
        self._pool.touch(hit.block_ids)
        table.block_ids.extend(hit.block_ids)
        table.num_settled = len(hit.block_ids)

    def extend(
        self, table: BlockTable, token_ids: Sequence[int], num_tokens: int
    ) -> tuple[int, ...] | None:
        """Let the table cover `num_tokens` tokens, which the coming step has all computed at its
        end: `token_ids`, a part of them, or guesses after them. Returns the new blocks; None, and
        nothing changed, if too few are left.

        Blocks that become full of known tokens are registered at once, so that a request planned
        later in the same step shares them. That is safe, because each layer writes all KV of a step
        before attention reads any; only if the request fails must they be forgotten. A block with a
        guess in it is registered by a later call, when its tokens are known.
        """
        num_new = self.blocks_for(num_tokens) - len(table.block_ids)
        new_block_ids: tuple[int, ...] = ()
        if num_new > 0:
            if num_new > self._pool.num_available:
                return None
            new_block_ids = tuple(self._pool.allocate(num_new))
            table.block_ids.extend(new_block_ids)
        if self.enable_prefix_caching and num_tokens // self.block_size > table.num_settled:
            self._settle(table, token_ids, min(num_tokens, len(token_ids)) // self.block_size)
        return new_block_ids

    def free(self, table: BlockTable) -> None:
        """Give back all blocks. Later ones are evicted before those that they build upon."""
        self._pool.free(reversed(table.block_ids))
        table.block_ids.clear()
        table.num_settled = 0

    def forget(self, table: BlockTable) -> None:
        """Let no other request find the content of these blocks: computing it went wrong.

        Blocks that came from the cache are included. One of them may be the cause, and would fail
        everyone who shares it for as long as it is found.
        """
        self._pool.forget(table.block_ids)

    def known_blocks(
        self,
        keep: Container[BlockHash],
        scope: bytes | None = None,
        keys: Container[BlockHash] = frozenset(),
    ) -> list[int]:
        """Blocks that can be found by their content, but for those of `keep`: all, or those of a
        scope and with one of these contents."""
        if scope is None:
            return self._pool.known_except(keep)
        return self._pool.known_of(scope, keys, keep)

    def forget_blocks(self, block_ids: Sequence[int]) -> None:
        """Let nobody find what these hold."""
        self._pool.forget(block_ids)

    def check_integrity(self) -> None:
        """Raises AssertionError if free + used + cached blocks are not all blocks."""
        self._pool.check_integrity()

    def _root(self, salt: str) -> BlockHash:
        return root_hash(
            model_version=self._model_version,
            kv_dtype=self._kv_dtype,
            block_size=self.block_size,
            salt=salt,
        )

    def _settle(self, table: BlockTable, token_ids: Sequence[int], num_full: int) -> None:
        for _ in self._hash_up_to(table, token_ids, num_full):
            pass
        for index in range(table.num_settled, num_full):
            scope = table.scope if index >= table.num_public else b""
            self._pool.register(table.block_ids[index], table.hashes[index], scope)
        table.num_settled = num_full

    def _hash_up_to(
        self, table: BlockTable, token_ids: Sequence[int], num_blocks: int
    ) -> Iterator[BlockHash]:
        """The hashes of the first `num_blocks` blocks that are not known yet; each is, once it was
        given."""
        hashes, num_known = table.hashes, len(table.hashes)
        if num_known >= num_blocks:
            return
        parent = hashes[-1] if num_known > table.num_public else table.root
        unknown = token_ids[num_known * self.block_size : num_blocks * self.block_size]
        for key in block_hashes(parent, unknown, self.block_size):
            hashes.append(key)
            yield key
