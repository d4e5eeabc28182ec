"""What is learnt of steps and loads, and what follows for the next request."""

from __future__ import annotations

from novacron.records.output import TierSpec
from novacron.scheduler.fetch_choice import MeasuredFetchChoice
from novacron.testing.clock import FakeClock


def make_choice(clock: FakeClock) -> MeasuredFetchChoice:
    tiers = [TierSpec(kind="ram", capacity_bytes=1), TierSpec(kind="disk", capacity_bytes=1)]
    return MeasuredFetchChoice(
        tiers, block_bytes=100_000, block_size=16, tokens_per_step=2048, clock=clock
    )


def compute(choice: MeasuredFetchChoice, clock: FakeClock, num_tokens: int, seconds: float) -> None:
    choice.begin_step(num_tokens, 1)
    clock.advance(seconds)
    choice.end_step()


def test_before_anything_was_computed_all_is_fetched() -> None:
    assert make_choice(FakeClock()).cut([1] * 100, 5) == 100


def test_steps_that_only_decode_tell_nothing_of_prompts() -> None:
    clock = FakeClock()
    choice = make_choice(clock)
    choice.begin_step(32, 32)
    clock.advance(1e-9)
    choice.end_step()
    assert choice.cut([1] * 100, 5) == 100


def test_a_disk_that_turns_out_slow_is_passed_over_until_hope_returns() -> None:
    clock = FakeClock()
    choice = make_choice(clock)
    for num_tokens in (500, 2000):
        compute(choice, clock, num_tokens, 0.004 + num_tokens * 50e-6)
    assert choice.cut([1] * 128, 5) == 128
    for _ in range(10):
        choice.see_load(1, 128, 1.0)
    assert choice.cut([1] * 128, 5) == 0
    assert choice.cut([0] * 64 + [1] * 64, 5) == 64, "RAM is not meant"
    passed_over = 0
    while choice.cut([1] * 128, 5) == 0:
        passed_over += 1
        assert passed_over < 500
    assert passed_over > 10


def test_a_short_prefix_on_disk_is_computed() -> None:
    clock = FakeClock()
    choice = make_choice(clock)
    compute(choice, clock, 500, 0.025)
    assert choice.cut([1], 5) == 0
    assert choice.cut([1] * 64, 5) == 64
