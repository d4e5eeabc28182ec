"""Block identity: equal content, equal hash; anything else different, today and after a restart."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from novacron.records.block import BlockHash, block_hashes, root_hash

IDENTITY = {"model_version": "m", "kv_dtype": "float32", "block_size": "16", "salt": ""}
TOKENS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=16)


def block_hash(parent: BlockHash, token_ids: list[int]) -> BlockHash:
    (key,) = block_hashes(parent, token_ids, len(token_ids))
    return key


def root(**changes: str) -> bytes:
    identity = {**IDENTITY, **changes}
    return root_hash(
        model_version=identity["model_version"],
        kv_dtype=identity["kv_dtype"],
        block_size=int(identity["block_size"]),
        salt=identity["salt"],
    )


def test_the_hash_is_the_same_in_every_process() -> None:
    parent = root_hash(model_version="m", kv_dtype="float32", block_size=16, salt="")
    assert parent.hex() == "8c8df798525c47b36766bd80f63b78a2"
    assert block_hash(parent, [1, 2, 3]).hex() == "71b67303a5f00119c973705c45c0e070"


def test_every_part_of_the_identity_counts() -> None:
    changes = [{}, {"model_version": "n"}, {"kv_dtype": "int8"}, {"block_size": "32"}]
    roots = [root(**change) for change in (*changes, {"salt": "tenant"})]
    assert all(a != b for a, b in itertools.combinations(roots, 2))


@given(TOKENS, TOKENS)
def test_different_tokens_or_parents_differ(first: list[int], second: list[int]) -> None:
    parent = root_hash(model_version="m", kv_dtype="float32", block_size=16, salt="")
    one, two = block_hash(parent, first), block_hash(parent, second)
    assert (one == two) == (first == second)
    assert (block_hash(one, first) == block_hash(two, first)) == (first == second)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40), st.integers(1, 16))
def test_each_full_block_builds_upon_the_one_before(tokens: list[int], block_size: int) -> None:
    parent = root_hash(model_version="m", kv_dtype="float32", block_size=16, salt="")
    one_by_one = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = block_hash(parent, tokens[start : start + block_size])
        one_by_one.append(parent)
    first = root_hash(model_version="m", kv_dtype="float32", block_size=16, salt="")
    assert list(block_hashes(first, tokens, block_size)) == one_by_one
