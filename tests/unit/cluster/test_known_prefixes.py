from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.cluster.known_prefixes import MOST_BLOCKS, KnownPrefixes, prompt_chain
from novacron.kv_cache.kv_cache_manager import KVCacheManager

prompts = st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple)


def chain(tokens: tuple[int, ...]) -> list[bytes]:
    return list(prompt_chain(tokens, 2, ""))


@given(st.lists(prompts, min_size=1, max_size=25), st.integers(1, 12))
def test_it_forgets_as_a_cache_that_holds_as_many_blocks(
    sent: list[tuple[int, ...]], capacity: int
) -> None:
    """Against the engine's own cache, given the same prompts one after the other."""
    known = KnownPrefixes(capacity)
    engine = KVCacheManager(capacity, 2, model_version="", kv_dtype="")
    for tokens in sent:
        if len(tokens) // 2 > capacity:
            continue
        full = tokens[: len(tokens) // 2 * 2]
        table = engine.open_table("")
        hit = engine.find_prefix(table, (*full, 9))  # so that the last block is looked up, too
        assert known.num_known(chain(full)) == len(hit.block_ids)
        engine.adopt(table, hit)
        assert engine.extend(table, full, len(full)) is not None
        engine.free(table)
        known.use(chain(full))
        assert len(known) <= capacity


@given(st.lists(prompts, min_size=1, max_size=25), st.integers(1, 12), st.data())
def test_what_comes_before_a_known_block_is_known(
    sent: list[tuple[int, ...]], capacity: int, data: st.DataObject
) -> None:
    known = KnownPrefixes(capacity)
    for tokens in sent:
        known.use(chain(tokens))
        if data.draw(st.booleans()):
            other = chain(data.draw(st.sampled_from(sent)))
            if other:
                known.forget_until(known.last_use(data.draw(st.sampled_from(other))))
        for checked in sent:
            places = [known.last_use(key) > 0 for key in chain(checked)]
            assert places == sorted(places, reverse=True)
            assert known.num_known(chain(checked)) == sum(places)


def test_chains_are_of_full_blocks_and_apart_by_their_salt() -> None:
    assert len(prompt_chain(range(33), 16, "")) == 2
    assert prompt_chain(range(40), 16, "")[:2] == prompt_chain(range(33), 16, "")
    assert prompt_chain(range(33), 16, "a")[0] != prompt_chain(range(33), 16, "")[0]
    assert len(prompt_chain(range(100_000), 16, "")) == MOST_BLOCKS


def test_a_chain_goes_on_from_its_begin() -> None:
    whole = prompt_chain(range(80), 16, "s")
    assert prompt_chain(range(80), 16, "s", whole[:3]) == whole
    assert prompt_chain(range(80), 16, "s", whole) == whole
