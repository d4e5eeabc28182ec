from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, PromoteBlocks, TierKeys
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.prefetch import Effect, Prefetcher, PrefetchLimits, PrefetchMode
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.fake_tiers import Content, FakeTiers
from novacron.testing.kv_records import key_of
from novacron.testing.scheduler_driver import SchedulerDriver

BUFFER, DISK = 0, 1
CHAINS = [[key_of(10 * n + m) for m in range(5)] for n in range(4)]
USEFUL, USELESS = Effect(100, 80), Effect(100, 5)


def index_of(*, on_disk: Iterable[BlockHash], in_buffer: Iterable[BlockHash] = ()) -> TierIndex:
    index = TierIndex(2, buffer=BUFFER)
    added = (TierKeys(DISK, tuple(on_disk)), TierKeys(BUFFER, tuple(in_buffer)))
    index.see(BlockNews(added=added))
    return index


EVERYTHING = [key for chain in CHAINS for key in chain]


def make(
    mode: PrefetchMode = "aggressive",
    *,
    due: list[list[BlockHash]] | None = None,
    buffer_blocks: int = 100,
    blocks_per_s: float = 1000.0,
) -> Prefetcher:
    limits = PrefetchLimits(buffer_blocks, blocks_per_s)
    return Prefetcher(mode, BUFFER, limits, lambda now_s, horizon_s: due or [])


def chosen(
    prefetcher: Prefetcher,
    index: TierIndex,
    now_s: float = 0.0,
    on_device: Iterable[BlockHash] = (),
    effect: Effect = Effect(),  # noqa: B008 (frozen)
) -> list[BlockHash]:
    held = set(on_device)
    orders = prefetcher.choose(now_s, index, held.__contains__, effect)
    assert all((order.source, order.target) == (DISK, BUFFER) for order in orders)
    for order in orders:
        index.promote(order)
    return [key for order in orders for key in order.keys]


def test_the_prefix_of_a_waiting_request_is_fetched_as_far_as_it_lies_on_disk() -> None:
    chain = CHAINS[0]
    index = index_of(on_disk=[*chain[:2], chain[4]], in_buffer=chain[1:2])
    prefetcher = make("conservative")
    prefetcher.expect(lambda: chain)
    assert chosen(prefetcher, index) == chain[:1], "the second is there, the third nowhere"
    assert chosen(prefetcher, index) == []


def test_what_the_device_has_is_passed_over() -> None:
    chain = CHAINS[0]
    prefetcher = make()
    prefetcher.expect(lambda: chain)
    index = index_of(on_disk=chain[1:])
    assert chosen(prefetcher, index, on_device=chain[:2]) == chain[2:]


def test_who_does_not_wait_any_more_costs_nothing() -> None:
    prefetcher = make()
    prefetcher.expect(lambda: None)
    assert chosen(prefetcher, index_of(on_disk=EVERYTHING)) == []


def test_sessions_that_are_due_are_for_the_bolder_modes() -> None:
    for mode, expected in (("conservative", []), ("aggressive", CHAINS[1])):
        prefetcher = make(mode, due=[CHAINS[1]])  # type: ignore[arg-type]
        assert chosen(prefetcher, index_of(on_disk=EVERYTHING)) == expected
        assert prefetcher.is_watching is (mode != "conservative")


def test_adaptive_stops_what_is_not_used_and_tries_again_now_and_then() -> None:
    prefetcher = make("adaptive", due=[CHAINS[1]])
    now_s = 0.0
    for effect, fewest, most in ((USEFUL, 40, 40), (USELESS, 1, 4), (Effect(10, 0), 40, 40)):
        num_fetching = 0
        for _ in range(40):
            now_s += 1.0
            index = index_of(on_disk=EVERYTHING)
            num_fetching += bool(chosen(prefetcher, index, now_s, effect=effect))
        assert fewest <= num_fetching <= most
    prefetcher.expect(lambda: CHAINS[2])
    certain = chosen(prefetcher, index_of(on_disk=EVERYTHING), now_s + 1, effect=USELESS)
    assert set(CHAINS[2]) <= set(certain), "what is certain does not depend on it"


def test_a_block_is_fetched_once() -> None:
    index = index_of(on_disk=EVERYTHING)
    prefetcher = make()
    for _ in range(2):
        prefetcher.expect(lambda: CHAINS[0])
    assert chosen(prefetcher, index) == CHAINS[0]
    prefetcher.expect(lambda: CHAINS[0])
    assert chosen(prefetcher, index, 1.0) == []
    index.see(BlockNews(promoted=tuple(CHAINS[0])))
    assert not index.is_promoting(CHAINS[0][0])


def test_pinned_prefixes_come_first_as_far_as_the_buffer_reaches() -> None:
    prefetcher = make("conservative", buffer_blocks=7)
    for chain in CHAINS:
        prefetcher.want(chain)
    assert prefetcher.is_watching
    index = index_of(on_disk=EVERYTHING)
    fetched = [key for n in range(5) for key in chosen(prefetcher, index, float(n))]
    assert fetched == EVERYTHING[:7]
    assert not prefetcher.is_watching


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 3)), max_size=60),
    st.integers(1, 12),
    st.floats(1, 100),
)
def test_bandwidth_and_buffer_bound_what_is_fetched(
    events: list[tuple[float, int]], buffer_blocks: int, blocks_per_s: float
) -> None:
    prefetcher = make(buffer_blocks=buffer_blocks, blocks_per_s=blocks_per_s)
    now_s, num_fetched = 0.0, 0
    for pause_s, number in events:
        now_s += pause_s
        prefetcher.expect(lambda chain=CHAINS[number]: chain)  # type: ignore[misc]
        keys = chosen(prefetcher, index_of(on_disk=EVERYTHING), now_s)
        assert len(keys) == len(set(keys)) <= buffer_blocks
        num_fetched += len(keys)
        assert num_fetched <= blocks_per_s * (now_s + 0.5) + 1


def driver_with(
    mode: PrefetchMode, kept: list[OrderedDict[BlockHash, Content]] | None = None
) -> SchedulerDriver:
    """One seat, so that others wait; the tiers are a buffer of 20 blocks, and a disk."""
    tiers = FakeTiers(20, 200, kept=kept or ())
    spec = fake_spec(num_blocks=24, block_size=4, max_model_len=80)
    config = SchedulerConfig(max_num_seqs=1, max_num_batched_tokens=64)
    prefetcher = make(mode)
    executor = FakeExecutor(spec, tiers=tiers)
    return SchedulerDriver(config, executor, prefetcher=prefetcher)


def request(name: str, first: int, num_new: int = 4) -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=tuple(range(first, first + 33)),
        sampling=SamplingParams(max_tokens=num_new, ignore_eos=True, seed=0),
        arrival_time_s=0.0,
    )


def test_a_request_that_waits_finds_its_prefix_in_the_buffer() -> None:
    first = driver_with("conservative")
    first.scheduler.add(request("a", 100))
    first.run()
    assert first.executor.tiers is not None
    first.executor.tiers.work()
    assert [len(kept) for kept in first.executor.tiers.kept] == [0, 9], "no store goes there"

    driver = driver_with("conservative", first.executor.tiers.kept)
    driver.scheduler.add(request("long", 10, 20))
    driver.scheduler.add(request("waits", 100))
    tiers = driver.executor.tiers
    assert tiers is not None
    driver.step()
    driver.step()
    assert len(tiers.kept[BUFFER]) == 8
    driver.run()
    assert driver.final("waits").num_cached_tokens == 32
    buffer, disk = driver.scheduler.stats().kv_tiers
    assert (buffer.hit_tokens, disk.hit_tokens) == (32, 0)


def test_orders_name_their_tiers() -> None:
    prefetcher = Prefetcher(
        "aggressive", 1, PrefetchLimits(10, 100.0), lambda now_s, horizon_s: [CHAINS[0]]
    )
    index = TierIndex(4, buffer=1)
    keys = CHAINS[0]
    tiers = (TierKeys(2, tuple(keys[:2])), TierKeys(3, tuple(keys[2:])), TierKeys(0, (keys[1],)))
    index.see(BlockNews(added=tiers))
    assert prefetcher.choose(0.0, index, lambda key: False, Effect()) == [
        PromoteBlocks(2, 1, (keys[0],)),
        PromoteBlocks(3, 1, tuple(keys[2:])),
    ]
