"""Prefixes that come back from below the device, over a FakeExecutor that reads every block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.scheduler import SchedulerConfig
from novacron.records.block import BlockHash
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.scheduler.fetch_choice import FetchChoice
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.fake_tiers import Content, FakeTiers, FetchFirst
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

BLOCK_SIZE = 4
PROMPT = tuple(range(1, 34))  # 8 blocks and a token


def make_driver(
    *,
    num_blocks: int = 24,
    kept: list[OrderedDict[BlockHash, Content]] | None = None,
    tier_sizes: tuple[int, ...] = (100,),
    is_lost: Callable[[BlockHash], bool] = lambda key: False,
    policy: str = "fcfs",
    preemption_mode: str = "swap",
    fail_at: dict[str, int] | None = None,
    choice: FetchChoice | None = None,
) -> SchedulerDriver:
    tiers = FakeTiers(*tier_sizes, is_lost=is_lost, kept=kept or ())
    spec = fake_spec(num_blocks=num_blocks, block_size=BLOCK_SIZE, max_model_len=80)
    config = SchedulerConfig(
        max_num_seqs=4,
        max_num_batched_tokens=64,
        scheduling_policy=policy,  # type: ignore[arg-type]
        preemption_mode=preemption_mode,  # type: ignore[arg-type]
    )
    return SchedulerDriver(config, FakeExecutor(spec, tiers=tiers, fail_at=fail_at), choice=choice)


def make_request(
    name: str, prompt: tuple[int, ...] = PROMPT, *, salt: str = "", priority: int = 0
) -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=prompt,
        sampling=SamplingParams(max_tokens=6, ignore_eos=True, seed=0),
        arrival_time_s=0.0,
        cache_salt=salt,
        priority=priority,
    )


def ask(driver: SchedulerDriver, request: Request) -> int:
    """Run the request alone, and the tiers after it. How many of its tokens were cached."""
    driver.scheduler.add(request)
    driver.run()
    tiers = driver.executor.tiers
    assert tiers is not None
    tiers.work()
    driver.step()
    check(driver, request)
    return driver.final(request.request_id).num_cached_tokens


def check(driver: SchedulerDriver, request: Request) -> None:
    expected, reason = expected_tokens(request, driver.executor.spec)
    assert driver.tokens(request.request_id) == expected
    assert driver.final(request.request_id).finish_reason is reason


def kept_of(driver: SchedulerDriver) -> list[OrderedDict[BlockHash, Content]]:
    assert driver.executor.tiers is not None
    return driver.executor.tiers.kept


def test_after_a_restart_the_prefix_is_there() -> None:
    first = make_driver()
    assert ask(first, make_request("a")) == 0
    assert len(kept_of(first)[0]) == 9  # the answer's block is worth keeping, too
    second = make_driver(kept=kept_of(first))
    assert ask(second, make_request("b")) == 32
    stats = second.scheduler.stats()
    assert stats.kv_tiers[0].hit_tokens == 32
    assert (stats.num_tier_waits, stats.prefix_hits_tokens) == (1, 32)
    assert second.scheduler.stats().prompt_tokens == 1


@pytest.mark.parametrize("num_fetched", [0, 3])
def test_what_is_quicker_computed_is_not_waited_for(num_fetched: int) -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(kept=kept_of(first), choice=FetchFirst(num_fetched))
    assert ask(driver, make_request("b")) == num_fetched * BLOCK_SIZE
    stats = driver.scheduler.stats()
    assert stats.num_recomputed_instead == 1
    assert stats.num_tier_waits == (num_fetched > 0)
    assert ask(driver, make_request("c")) == 32, "the device has all of it now"
    assert driver.scheduler.stats().num_recomputed_instead == 1


def test_a_request_without_room_is_counted_once() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(num_blocks=12, kept=kept_of(first), choice=FetchFirst(2))
    long, waits = make_request("long", tuple(range(60, 91))), make_request("waits")
    driver.scheduler.add(long)
    driver.scheduler.add(waits)
    for _ in range(4):  # the first one leaves no room for the other
        driver.step()
    assert driver.scheduler.stats().num_recomputed_instead == 0
    driver.run()
    check(driver, waits)
    assert driver.scheduler.stats().num_recomputed_instead == 1


def test_tiers_are_told_where_in_its_chain_a_block_stands() -> None:
    driver = make_driver()
    ask(driver, make_request("a"))
    assert driver.executor.tiers is not None
    origins = driver.executor.tiers.origins
    assert sorted(origin.depth for origin in origins.values()) == list(range(9))
    for origin in origins.values():
        if origin.depth == 0:
            assert origin.parent is None
        else:
            assert origin.parent is not None
            assert origins[origin.parent].depth == origin.depth - 1


def test_what_the_device_evicted_comes_back() -> None:
    driver = make_driver(num_blocks=12)
    others = [make_request(f"o{n}", tuple(range(50 + n, 90 + n))) for n in range(3)]
    assert ask(driver, make_request("a")) == 0
    for other in others:
        assert ask(driver, other) == 0
    assert ask(driver, make_request("b")) == 32
    assert driver.scheduler.stats().kv_tiers[0].hit_tokens > 0


def test_another_salt_finds_nothing() -> None:
    first = make_driver()
    ask(first, make_request("a", salt="one"))
    second = make_driver(kept=kept_of(first))
    assert ask(second, make_request("b", salt="two")) == 0
    assert ask(second, make_request("c", salt="one")) == 32
    assert second.scheduler.stats().num_tier_waits == 1


def test_others_go_on_while_one_waits_for_its_blocks() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(kept=kept_of(first))
    waits, other = make_request("waits"), make_request("other", (60, 61, 62))
    driver.scheduler.add(waits)
    driver.scheduler.add(other)
    for _ in range(6):
        decision = driver.step()
        assert [part.request_id for part in decision.scheduled] == ["other"]
    assert driver.scheduler.stats().num_loading == 1
    assert driver.scheduler.num_waiting == 1
    check(driver, other)
    driver.run()
    check(driver, waits)
    assert driver.final("waits").num_cached_tokens == 32


def test_two_that_start_alike_wait_for_one_load() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(kept=kept_of(first))
    for name in ("b", "c"):
        driver.scheduler.add(make_request(name))
    driver.step()
    driver.run()
    for name in ("b", "c"):
        check(driver, make_request(name))
        assert driver.final(name).num_cached_tokens == 32
    assert driver.scheduler.stats().kv_tiers[0].hit_tokens == 32  # brought once
    assert driver.scheduler.stats().num_tier_waits == 2


def test_a_lost_block_cuts_the_prefix_and_nothing_else() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    third = list(kept_of(first)[0])[2]
    driver = make_driver(kept=kept_of(first), is_lost=lambda key: key == third)
    assert ask(driver, make_request("b")) == 8
    assert third in kept_of(driver)[0], "computed anew and stored again"


def test_an_aborted_request_leaves_its_load_to_others() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(kept=kept_of(first))
    driver.scheduler.add(make_request("b"))
    driver.step()
    driver.abort("b")
    assert driver.final("b").finish_reason is FinishReason.ABORT
    assert driver.scheduler.stats().num_loading == 0
    assert ask(driver, make_request("c")) == 32
    assert driver.scheduler.stats().num_used_blocks == 0


def test_blocks_of_a_request_that_failed_are_dropped_everywhere() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(kept=kept_of(first), fail_at={"b": 34})
    driver.scheduler.add(make_request("b"))
    driver.run()
    assert driver.final("b").finish_reason is FinishReason.ERROR
    assert len(kept_of(driver)[0]) <= 1  # at most what nobody but "a" built upon
    assert ask(driver, make_request("c")) == 0


def test_a_request_without_room_for_all_of_it_does_not_load() -> None:
    first = make_driver()
    ask(first, make_request("a"))
    driver = make_driver(num_blocks=12, kept=kept_of(first))
    driver.scheduler.add(make_request("big", tuple(range(40, 80))))
    driver.step()
    driver.scheduler.add(make_request("b"))
    driver.step()
    assert driver.scheduler.stats().num_loading == 0
    driver.run()
    check(driver, make_request("b"))


def test_of_two_tiers_the_first_is_asked() -> None:
    first = make_driver(tier_sizes=(4, 100))
    ask(first, make_request("a"))
    driver = make_driver(tier_sizes=(4, 100), kept=kept_of(first))
    assert ask(driver, make_request("b")) == 32
    ram, disk = driver.scheduler.stats().kv_tiers
    assert ram.hit_tokens > 0
    assert ram.hit_tokens + disk.hit_tokens == 32


@pytest.mark.parametrize("mode", ["swap", "recompute"])
def test_a_preempted_request_goes_on_from_where_it_was(mode: str) -> None:
    """Its blocks were not stored before others needed them."""
    driver = make_driver(num_blocks=20, policy="priority", preemption_mode=mode)
    low, high = make_request("low", priority=1), make_request("high", tuple(range(40, 100)))
    driver.scheduler.add(low)
    driver.step()
    driver.step()
    driver.scheduler.add(high)
    while driver.scheduler.stats().num_preemptions == 0:
        driver.step()
    parts = [part for decision in driver.run() for part in decision.scheduled]
    check(driver, low)
    check(driver, high)
    num_computed_again = len(PROMPT) - min(part.start for part in parts if part.request_id == "low")
    tiers = driver.executor.tiers
    assert tiers is not None
    if mode == "swap":
        assert tiers.num_parked > 0
        assert num_computed_again <= BLOCK_SIZE
        assert driver.scheduler.stats().kv_tiers[0].hit_tokens == 0, "no prompt was found"
    else:
        assert tiers.num_parked == 0
        assert num_computed_again > BLOCK_SIZE


@pytest.mark.parametrize("is_found", [True, False])
def test_a_block_that_was_found_on_the_device_is_saved_when_its_place_is_needed(
    is_found: bool,
) -> None:
    """No tier got to it before; one that nobody asked for again is not worth a step's time."""
    driver = make_driver(num_blocks=17)
    requests = [make_request(name) for name in ("a", "b")[: 1 + is_found]]
    requests += [make_request(f"{start}", tuple(range(start, 98))) for start in (40, 41, 42)]
    for request in requests:
        driver.scheduler.add(request)
        while driver.scheduler.has_work:  # and tiers have no time
            driver.step()
    tiers = driver.executor.tiers
    assert tiers is not None
    assert (tiers.num_parked > 0) == is_found
    driver.scheduler.add(make_request("again"))
    driver.step()
    tiers.work()
    driver.run()
    check(driver, make_request("again"))
    assert (driver.final("again").num_cached_tokens > 0) == is_found


histories = st.lists(
    st.tuples(
        st.sampled_from(
            [PROMPT, PROMPT[:21], (*PROMPT[:20], *range(70, 90)), tuple(range(90, 130))]
        ),
        st.sampled_from(["", "", "tenant"]),
        st.integers(0, 3),  # steps before the next one comes
        st.sampled_from([None, 0, 2]),  # stores before that
        st.booleans(),  # a restart before that
    ),
    min_size=2,
    max_size=12,
)


@given(
    histories,
    st.integers(14, 30),
    st.sampled_from([(5,), (3, 40), (200,)]),
    st.sampled_from([1, 2, 5, 10**9]),
    st.sampled_from(["fcfs", "priority"]),
    st.sampled_from(["swap", "swap", "recompute"]),
)
@settings(max_examples=150, deadline=None)
def test_tokens_never_depend_on_what_tiers_do(
    history: list[tuple[tuple[int, ...], str, int, int | None, bool]],
    num_blocks: int,
    tier_sizes: tuple[int, ...],
    lost_every: int,
    policy: str,
    preemption_mode: str,
) -> None:
    """Few prompts over a small device, restarts between, blocks that get lost."""

    def is_lost(key: BlockHash) -> bool:
        return int.from_bytes(key) % lost_every == 0

    kept: list[OrderedDict[BlockHash, Content]] | None = None
    driver = make_driver(
        num_blocks=num_blocks,
        tier_sizes=tier_sizes,
        is_lost=is_lost,
        policy=policy,
        preemption_mode=preemption_mode,
    )
    asked: list[Request] = []

    def end() -> None:
        driver.run()
        for request in asked:
            check(driver, request)
        for reader, writer in driver.executor.reads:
            salts = {r.request_id: r.cache_salt for r in all_requests}
            assert salts[reader] == salts[writer]
        assert driver.kv_tiers is not None
        driver.kv_tiers.index.check_integrity()

    all_requests: list[Request] = []
    for number, (prompt, salt, num_steps, num_stores, restarts) in enumerate(history):
        if restarts:
            end()
            kept, asked = kept_of(driver), []
            driver = make_driver(
                num_blocks=num_blocks,
                tier_sizes=tier_sizes,
                is_lost=is_lost,
                kept=kept,
                policy=policy,
                preemption_mode=preemption_mode,
            )
        request = make_request(f"r{number}", prompt, salt=salt, priority=number % 2)
        asked.append(request)
        all_requests.append(request)
        driver.scheduler.add(request)
        for _ in range(num_steps):
            driver.step()
        tiers = driver.executor.tiers
        assert tiers is not None
        tiers.work(num_stores, num_steps)
    end()
