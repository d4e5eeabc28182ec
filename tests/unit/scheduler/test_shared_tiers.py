"""Prefixes that others have stored: asked for once, loaded, and never a request that hangs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, TierKeys
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.fake_tiers import FakeTiers
from novacron.testing.kv_records import key_of
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

BLOCK_SIZE = 4
PROMPT = tuple(range(1, 34))  # 8 blocks and a token


def make_driver(like: SchedulerDriver | None = None, *, num_local: int = 0) -> SchedulerDriver:
    """With `num_local` tiers of its own before one that it shares with `like`."""
    tiers = FakeTiers(*(100,) * (num_local + 1), shared=frozenset({num_local}))
    if like is not None:
        assert like.executor.tiers is not None
        tiers.kept[num_local] = like.executor.tiers.kept[-1]
    spec = fake_spec(num_blocks=24, block_size=BLOCK_SIZE, max_model_len=80)
    config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64)
    return SchedulerDriver(config, FakeExecutor(spec, tiers=tiers))


def make_request(name: str, prompt: tuple[int, ...] = PROMPT) -> Request:
    sampling = SamplingParams(max_tokens=6, ignore_eos=True, seed=0)
    return Request(request_id=name, prompt_token_ids=prompt, sampling=sampling, arrival_time_s=0.0)


def tiers_of(driver: SchedulerDriver) -> FakeTiers:
    assert driver.executor.tiers is not None
    return driver.executor.tiers


def ask(driver: SchedulerDriver, request: Request) -> int:
    """Run the request, and the tiers beside it. How many of its tokens were cached."""
    driver.scheduler.add(request)
    for _ in range(60):
        driver.step()
        tiers_of(driver).work()
    driver.step()
    expected, reason = expected_tokens(request, driver.executor.spec)
    assert driver.tokens(request.request_id) == expected
    assert driver.final(request.request_id).finish_reason is reason
    return driver.final(request.request_id).num_cached_tokens


def test_a_server_next_door_finds_what_another_stores_while_it_runs() -> None:
    first = make_driver()
    second = make_driver(first)
    assert ask(second, make_request("other", tuple(range(40, 73)))) == 0
    assert ask(first, make_request("a")) == 0
    assert ask(second, make_request("b")) == 32
    assert second.scheduler.stats().kv_tiers[0].hit_tokens == 32


def test_it_is_asked_once_for_each_request_and_not_for_what_is_known() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    assert tiers_of(first).num_lookups == 1
    ask(first, make_request("again"))  # which the device has
    assert tiers_of(first).num_lookups == 1
    ask(first, make_request("short", PROMPT[::-1][:13]))  # three blocks
    assert tiers_of(first).num_lookups == 1
    ask(first, make_request("goes on", PROMPT + tuple(range(34, 60))))
    assert tiers_of(first).num_lookups == 2


def test_what_lies_nearer_is_taken_from_there() -> None:
    first = make_driver(num_local=1)
    ask(first, make_request("a"))
    second = make_driver(first, num_local=1)
    assert ask(second, make_request("b")) == 32
    assert len(tiers_of(second).kept[0]) == 9, "and it is stored where it was not"
    assert [tier.hit_tokens for tier in second.scheduler.stats().kv_tiers] == [0, 32]


def test_a_request_that_waits_for_an_answer_can_be_aborted() -> None:
    driver = make_driver()
    driver.scheduler.add(make_request("a"))
    driver.step()
    assert driver.scheduler.stats().num_loading == 1
    output = driver.scheduler.abort("a")
    assert output is not None
    assert output.finish_reason is FinishReason.ABORT
    tiers_of(driver).work()
    driver.step()
    assert driver.scheduler.stats().num_loading == 0
    assert ask(driver, make_request("b")) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "step", "work", "abort"]), st.integers(0, 5)), max_size=60
    )
)
@settings(max_examples=60, deadline=None)
def test_every_request_ends_once_with_its_own_tokens(happenings: list[tuple[str, int]]) -> None:
    """Two servers that share a tier; the promises of each step are checked by the driver."""
    first = make_driver(num_local=1)
    drivers = [first, make_driver(first, num_local=1)]
    added: list[tuple[SchedulerDriver, Request]] = []
    aborted = set()
    for turn, (what, which) in enumerate(happenings):
        driver = drivers[which % 2]
        if what == "add":
            start = 1 + which // 2
            request = make_request(f"r{turn}", tuple(range(start, start + 20 + 4 * which)))
            driver.scheduler.add(request)
            added.append((driver, request))
        elif what == "step":
            driver.step()
        elif what == "work":
            tiers_of(driver).work()
        elif added:
            owner, request = added[which % len(added)]
            if owner.scheduler.abort(request.request_id) is not None:
                aborted.add(request.request_id)
    for driver in drivers:
        for _ in range(200):
            driver.step()
            tiers_of(driver).work()
        driver.step()
        stats = driver.scheduler.stats()
        assert (stats.num_loading, stats.num_waiting, stats.num_running) == (0, 0, 0)
        assert driver.kv_tiers is not None
        driver.kv_tiers.index.check_integrity()
    for driver, request in added:
        if request.request_id not in aborted:
            expected, _ = expected_tokens(request, driver.executor.spec)
            assert driver.tokens(request.request_id) == expected


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 1), st.lists(st.integers(0, 20), max_size=8)),
        max_size=30,
    )
)
def test_of_a_shared_tier_only_so_much_is_remembered(
    news: list[tuple[bool, int, list[int]]],
) -> None:
    index = TierIndex(2, shared=[1], most_known=5)
    expected: dict[BlockHash, None] = {}
    for is_added, tier, numbers in news:
        change = (TierKeys(tier, tuple(map(key_of, numbers))),)
        index.see(BlockNews(added=change) if is_added else BlockNews(removed=change))
        for number in numbers if tier == 1 else ():
            if is_added:
                expected[key_of(number)] = None
            else:
                expected.pop(key_of(number), None)
            while len(expected) > 5:
                del expected[next(iter(expected))]
        index.check_integrity()
        assert index.num_blocks[1] == len(expected)
        assert all(1 in index.tiers_of(key) for key in expected)
