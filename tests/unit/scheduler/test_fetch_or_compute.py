"""The cut between fetching and computing: never dearer than computing all, and about the best."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.fetch_or_compute import FREE, ComputeCost, FetchCost, choose_cut

BLOCK_SIZE = 16
SECONDS = st.floats(0, 1, allow_subnormal=False)
COMPUTE = st.builds(ComputeCost, SECONDS, SECONDS, st.integers(1, 500))
FETCH = st.fixed_dictionaries({tier: st.builds(FetchCost, SECONDS, SECONDS) for tier in range(3)})
CHAIN = st.lists(st.sampled_from([0, 1, 2, FREE]), max_size=40)
FAST = ComputeCost(per_step_s=0.004, per_token_s=0.00005, tokens_per_step=2048)


def slow_cost_s(
    chain: Sequence[int | None],
    cut: int,
    fetch: dict[int, FetchCost],
    compute: ComputeCost,
    more: int,
) -> float:
    """Block by block, and step by step."""
    seconds = sum(fetch[tier].per_block_s for tier in chain[:cut] if tier is not None)
    seconds += sum(fetch[tier].latency_s for tier in {t for t in chain[:cut] if t is not None})
    left = (len(chain) - cut) * BLOCK_SIZE
    with_prefix = sum(1 for _ in range(0, left + more, compute.tokens_per_step))
    without = sum(1 for _ in range(0, more, compute.tokens_per_step))
    return seconds + left * compute.per_token_s + (with_prefix - without) * compute.per_step_s


@given(CHAIN, FETCH, COMPUTE, st.integers(1, 600))
def test_never_much_dearer_than_computing_all_or_than_fetching_all(
    chain: list[int | None], fetch: dict[int, FetchCost], compute: ComputeCost, more: int
) -> None:
    cut = choose_cut(chain, fetch, compute, block_size=BLOCK_SIZE, num_more_tokens=more)
    assert 0 <= cut <= len(chain)
    cost_s = slow_cost_s(chain, cut, fetch, compute, more)
    for other in (0, len(chain)):
        assert cost_s <= 1.1 * slow_cost_s(chain, other, fetch, compute, more) + 1e-9


@given(CHAIN, FETCH, st.builds(ComputeCost, st.just(0.0), SECONDS, st.integers(1, 500)))
def test_no_other_cut_is_much_cheaper_where_steps_cost_nothing(
    chain: list[int | None], fetch: dict[int, FetchCost], compute: ComputeCost
) -> None:
    cut = choose_cut(chain, fetch, compute, block_size=BLOCK_SIZE, num_more_tokens=1)
    costs = [slow_cost_s(chain, one, fetch, compute, 1) for one in range(len(chain) + 1)]
    assert costs[cut] <= 1.06 * min(costs) + 1e-9


@given(CHAIN, FETCH)
def test_what_nobody_has_measured_is_fetched(
    chain: list[int | None], fetch: dict[int, FetchCost]
) -> None:
    assert choose_cut(chain, fetch, None, block_size=16, num_more_tokens=1) == len(chain)


def test_a_fast_tier_is_used_and_a_slow_one_behind_it_is_not() -> None:
    fetch = {0: FetchCost(0.0005, 0.00003), 1: FetchCost(0.5, 0.01)}
    chain = [0] * 60 + [1] * 60
    assert choose_cut(chain, fetch, FAST, block_size=16, num_more_tokens=5) == 60
    assert choose_cut(chain[60:], fetch, FAST, block_size=16, num_more_tokens=5) == 0


def test_a_short_prefix_is_not_worth_a_latency() -> None:
    fetch = {0: FetchCost(0.01, 0.00005)}
    assert choose_cut([0] * 2, fetch, FAST, block_size=16, num_more_tokens=5) == 0
    assert choose_cut([0] * 100, fetch, FAST, block_size=16, num_more_tokens=5) == 100


def test_what_is_on_its_way_costs_nothing() -> None:
    fetch = {0: FetchCost(100.0, 1.0)}
    assert choose_cut([FREE] * 4, fetch, FAST, block_size=16, num_more_tokens=5) == 4
    assert choose_cut([FREE] * 4 + [0], fetch, FAST, block_size=16, num_more_tokens=5) == 4
