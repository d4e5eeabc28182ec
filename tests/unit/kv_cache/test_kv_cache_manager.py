from __future__ import annotations

from collections.abc import Iterator

import pytest

from novacron.kv_cache import kv_cache_manager
from novacron.kv_cache.kv_cache_manager import NO_HIT, BlockTable, KVCacheManager
from novacron.records.block import BlockHash, block_hashes

TOKENS = list(range(100, 120))


def manager(num_blocks: int = 8, *, caching: bool = True, version: str = "v1") -> KVCacheManager:
    return KVCacheManager(
        num_blocks,
        4,
        model_version=version,
        kv_dtype="float32",
        enable_prefix_caching=caching,
    )


def computed(cache: KVCacheManager, token_ids: list[int], salt: str = "") -> BlockTable:
    """The table of a request that has computed `token_ids` from the start."""
    table = cache.open_table(salt)
    assert cache.extend(table, token_ids, len(token_ids)) is not None
    cache.check_integrity()
    return table


def test_extend_takes_only_the_blocks_that_are_missing() -> None:
    cache = manager()
    table = cache.open_table("")
    assert len(cache.extend(table, TOKENS, 5) or ()) == 2
    assert cache.extend(table, TOKENS, 8) == ()
    assert len(cache.extend(table, TOKENS, 9) or ()) == 1
    assert len(set(table.block_ids)) == 3
    assert cache.num_used_blocks == 3


def test_extend_without_room_changes_nothing() -> None:
    cache = manager(num_blocks=2)
    table = computed(cache, TOKENS[:4])
    assert cache.extend(table, TOKENS, 20) is None
    assert (len(table.block_ids), cache.num_used_blocks) == (1, 1)
    cache.check_integrity()


@pytest.mark.parametrize(
    ("num_known", "num_hit_tokens"),
    [(20, 16), (17, 16), (16, 12), (5, 4), (4, 0), (1, 0)],
)
def test_a_prefix_is_found_in_whole_blocks_one_token_short_of_the_end(
    num_known: int, num_hit_tokens: int
) -> None:
    cache = manager()
    first = computed(cache, TOKENS)
    hit = cache.find_prefix(cache.open_table(""), TOKENS[:num_known])
    assert hit.num_tokens == num_hit_tokens
    assert list(hit.block_ids) == first.block_ids[: num_hit_tokens // 4]


def test_a_block_with_guesses_is_found_only_once_its_tokens_are_known() -> None:
    cache = manager()
    table = cache.open_table("")
    assert len(cache.extend(table, TOKENS[:6], 9) or ()) == 3
    assert cache.find_prefix(cache.open_table(""), TOKENS).num_tokens == 4
    assert cache.extend(table, TOKENS[:8], 8) == ()
    assert cache.find_prefix(cache.open_table(""), TOKENS).num_tokens == 8
    cache.check_integrity()


def test_a_prefix_ends_where_the_tokens_differ() -> None:
    cache = manager()
    computed(cache, TOKENS)
    other = [*TOKENS[:9], 7, *TOKENS[10:]]
    assert cache.find_prefix(cache.open_table(""), other).num_tokens == 8


def test_equal_tokens_after_another_prefix_are_not_the_same_block() -> None:
    cache = manager()
    computed(cache, TOKENS[:8])
    assert cache.find_prefix(cache.open_table(""), [7, 7, 7, 7, *TOKENS[4:9]]) == NO_HIT


def test_full_blocks_are_shared_before_their_step_has_run() -> None:
    cache = manager()
    first = computed(cache, TOKENS[:10])
    second = cache.open_table("")
    hit = cache.find_prefix(second, TOKENS[:10])
    cache.adopt(second, hit)
    assert second.block_ids == first.block_ids[:2]
    assert len(cache.extend(second, TOKENS, 10) or ()) == 1
    assert cache.num_used_blocks == 4
    cache.free(first)
    assert cache.num_used_blocks == 3
    cache.check_integrity()


def test_no_block_crosses_from_one_salt_to_another() -> None:
    cache = manager()
    cache.free(computed(cache, TOKENS, salt="tenant a"))
    for salt in ("", "tenant b", "tenant a\x00"):
        assert cache.find_prefix(cache.open_table(salt), TOKENS) == NO_HIT
    assert cache.find_prefix(cache.open_table("tenant a"), TOKENS).num_tokens == 16


def test_block_identity_holds_the_model_version() -> None:
    roots = {manager(version=version).open_table("").root for version in ("v1", "v2")}
    assert len(roots) == 2


def test_without_prefix_caching_nothing_is_found_or_kept() -> None:
    cache = manager(caching=False)
    cache.free(computed(cache, TOKENS))
    assert cache.find_prefix(cache.open_table(""), TOKENS) == NO_HIT
    assert cache.num_cached_blocks == 0


def test_later_blocks_of_a_request_are_evicted_before_earlier_ones() -> None:
    cache = manager(num_blocks=5)
    cache.free(computed(cache, TOKENS))  # 5 full blocks, all cached
    computed(cache, [1, 2, 3, 4, 5, 6, 7, 8])  # evicts two
    assert cache.find_prefix(cache.open_table(""), TOKENS).num_tokens == 12


def test_forgotten_blocks_are_not_found_and_not_kept() -> None:
    cache = manager()
    table = computed(cache, TOKENS)
    cache.forget(table)
    assert cache.find_prefix(cache.open_table(""), TOKENS) == NO_HIT
    cache.free(table)
    assert (cache.num_cached_blocks, cache.num_used_blocks) == (0, 0)
    cache.check_integrity()


def test_a_freed_table_can_start_again_from_what_is_left_of_it() -> None:
    cache = manager()
    table = computed(cache, TOKENS[:18])
    cache.free(table)
    hit = cache.find_prefix(table, TOKENS[:18])
    assert hit.num_tokens == 16
    cache.adopt(table, hit)
    assert len(cache.extend(table, TOKENS, 18) or ()) == 1
    cache.check_integrity()


def test_each_block_is_hashed_once_in_the_life_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[BlockHash] = []

    def counting(parent: BlockHash, token_ids: list[int], block_size: int) -> Iterator[BlockHash]:
        for key in block_hashes(parent, token_ids, block_size):
            hashed.append(key)
            yield key

    monkeypatch.setattr(kv_cache_manager, "block_hashes", counting)
    cache = manager()
    table = cache.open_table("")
    for num_tokens in range(1, 19):  # looked up, then computed token by token
        cache.find_prefix(table, TOKENS[:18])
        cache.extend(table, TOKENS, num_tokens)
    cache.free(table)
    cache.adopt(table, cache.find_prefix(table, TOKENS[:18]))
    assert hashed == list(block_hashes(table.root, TOKENS[:16], 4))


def test_a_cold_prompt_is_not_hashed_beyond_its_first_block() -> None:
    cache = manager()
    table = cache.open_table("")
    cache.find_prefix(table, TOKENS)
    assert len(table.hashes) == 1


@pytest.mark.parametrize(("num_spare_blocks", "fits"), [(0, True), (1, False), (-1, True)])
def test_room_counts_blocks_that_the_hit_itself_takes_out_of_the_cache(
    num_spare_blocks: int, fits: bool
) -> None:
    cache = manager(num_blocks=5)
    cache.free(computed(cache, TOKENS[:16]))  # 4 cached, 1 free
    hit = cache.find_prefix(cache.open_table(""), TOKENS[:18])
    assert hit.num_tokens == 16
    assert cache.has_room(18, hit, num_spare_blocks) is fits
