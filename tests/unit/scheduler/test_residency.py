"""Where blocks may be: none is stored in, looked for in, or fetched from a region that its tenant
has not allowed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.privacy import may_be_in
from novacron.config.scheduler import SchedulerConfig
from novacron.records.block_moves import BlockOrders
from novacron.records.request import Request, SamplingParams
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.fake_tiers import FakeTiers
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

REGIONS = ("", "eu", "us")
PLACES = st.lists(st.sampled_from(REGIONS), min_size=3, max_size=3)
ALLOWED = st.lists(st.sampled_from(REGIONS[1:]), max_size=2, unique=True).map(tuple)
TENANTS = ("a", "b", "c")


class WatchedTiers(FakeTiers):
    """Remembers what every order concerned: the tier, and the block."""

    def __init__(self, regions: list[str]) -> None:
        super().__init__(100, 100, 100, shared=frozenset({2}), regions=regions)
        self.touched: set[tuple[int, bytes]] = set()

    def order(self, orders: BlockOrders) -> None:
        self.touched |= {(tier, store.key) for store in orders.stores for tier in store.tiers}
        self.touched |= {(b.tier, b.key) for load in orders.loads for b in load.blocks}
        self.touched |= {(one.tier, key) for one in orders.lookups for key in one.keys}
        super().order(orders)


@given(
    places=PLACES,
    allowed=st.fixed_dictionaries(dict.fromkeys(TENANTS, ALLOWED)),
    calls=st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 1)), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_no_block_is_moved_where_it_may_not_be(
    places: list[str], allowed: dict[str, tuple[str, ...]], calls: list[tuple[str, int]]
) -> None:
    tiers = WatchedTiers(places)
    spec = fake_spec(num_blocks=20, block_size=4, max_model_len=80)
    config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64)
    driver = SchedulerDriver(config, FakeExecutor(spec, tiers=tiers))
    for number, (tenant, prompt) in enumerate(calls):
        request = Request(
            request_id=str(number),
            prompt_token_ids=tuple(range(1 + 40 * prompt, 34 + 40 * prompt)),
            sampling=SamplingParams(max_tokens=3, ignore_eos=True, seed=0),
            arrival_time_s=0.0,
            cache_salt=tenant,
            cache_scope=tenant.encode() * 8,
            regions=allowed[tenant],
        )
        before = set(tiers.touched)
        driver.scheduler.add(request)
        for _ in range(20):
            driver.step()
            tiers.work()
        assert driver.tokens(request.request_id) == expected_tokens(request, spec)[0]
        for tier, _ in tiers.touched - before:
            assert may_be_in(places[tier], allowed[tenant])
        if not allowed[tenant]:
            assert all(tiers.kept)


def test_a_repeat_comes_from_a_tier_that_is_allowed() -> None:
    """Beside a faster one that is not."""
    tiers = WatchedTiers(["us", "eu", "us"])
    spec = fake_spec(num_blocks=12, block_size=4, max_model_len=80)
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        FakeExecutor(spec, tiers=tiers),
    )
    for number, first in enumerate((1, 100, 1)):
        request = Request(
            request_id=str(number),
            prompt_token_ids=tuple(range(first, first + 33)),
            sampling=SamplingParams(max_tokens=2, ignore_eos=True, seed=0),
            arrival_time_s=0.0,
            regions=("eu",),
        )
        driver.scheduler.add(request)
        for _ in range(30):
            driver.step()
            tiers.work()
    assert driver.final("2").num_cached_tokens == 32
    assert {tier for tier, _ in tiers.touched} == {1}
