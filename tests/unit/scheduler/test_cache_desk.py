"""Pins, public prefixes, clearing and isolation, over a FakeExecutor that reads every block."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_tiers.pins import PinLimits, PinnedPrefix, Pins
from novacron.records.block import BlockHash
from novacron.records.block_moves import TierKeys
from novacron.records.cache_orders import (
    ClearCache,
    ClearedCache,
    ListPins,
    Pin,
    PinList,
    Refused,
    Unpin,
)
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.sessions import Sessions
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.fake_tiers import Content, FakeTiers
from novacron.testing.scheduler_driver import SchedulerDriver

BLOCK_SIZE = 4
PREFIX = tuple(range(1, 17))  # 4 blocks
A, B = b"scope-aa", b"scope-bb"


class Desk:
    """A scheduler with tiers, and its cache desk."""

    def __init__(
        self,
        *,
        num_blocks: int = 24,
        tier_size: int = 12,
        kept: list[OrderedDict[BlockHash, Content]] | None = None,
        pins: tuple[PinnedPrefix, ...] = (),
    ) -> None:
        self.fake = FakeTiers(tier_size, kept=kept or ())
        spec = fake_spec(num_blocks=num_blocks, block_size=BLOCK_SIZE, max_model_len=80)
        config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64)
        self.driver = SchedulerDriver(config, FakeExecutor(spec, tiers=self.fake))
        assert self.driver.kv_tiers is not None
        self.tiers = self.driver.kv_tiers
        self.tiers.pins = Pins(PinLimits(8, 6), pins)
        self.tiers.tell_pins()
        self.written: list[tuple[PinnedPrefix, ...]] = []
        self.now_s = 1000.0
        self.tiers._now = lambda: self.now_s
        self.desk = CacheDesk(
            self.driver.kv_cache,
            self.tiers,
            Sessions(),
            block_bytes=100,
            write_pins=lambda pins: self.written.append(tuple(pins)),
            now=lambda: self.now_s,
            blocks_of=self.driver.executor.blocks_of,
        )
        self.num_asked = 0

    def run(
        self, tokens: tuple[int, ...], *, salt: str = "", scope: bytes = b"", session: bytes = b""
    ) -> int:
        """Of one request, run alone, the tiers after it: how many tokens were cached."""
        self.num_asked += 1
        request = Request(
            request_id=str(self.num_asked),
            prompt_token_ids=tokens,
            sampling=SamplingParams(max_tokens=1, ignore_eos=True, seed=0),
            arrival_time_s=0.0,
            cache_salt=salt,
            cache_scope=scope,
            session=session,
        )
        self.driver.scheduler.add(request)
        self.driver.run()
        self.fake.work()
        self.driver.step()
        return self.driver.final(request.request_id).num_cached_tokens

    def flood(self, *, salt: str = "", scope: bytes = b"", num_prompts: int = 10) -> None:
        """Fill device and tiers with other things."""
        for _ in range(num_prompts):
            draw = random.Random(self.num_asked)
            tokens = tuple(draw.randrange(20, 90) for _ in range(40))
            self.run(tokens, salt=salt, scope=scope)

    def pin(self, name: str = "p", tokens: tuple[int, ...] = PREFIX, **fields: object) -> PinList:
        answer = self.desk.answer(Pin(name, tokens, **fields))  # type: ignore[arg-type]
        assert isinstance(answer, PinList), answer
        return answer


def refused(answer: object) -> str:
    assert isinstance(answer, Refused), answer
    return answer.kind


def test_a_pinned_prefix_outlives_a_flood_and_an_unpinned_one_does_not() -> None:
    desk = Desk()
    desk.run((*PREFIX, 99))
    desk.flood()
    assert desk.run((*PREFIX, 99)) == 0
    [pin] = desk.pin().pins
    assert (pin.num_tokens, pin.num_blocks, pin.stored_blocks) == (16, 4, {"fake": 4})
    desk.flood()
    assert desk.run((*PREFIX, 99)) == 16
    assert isinstance(desk.desk.answer(Unpin("p")), PinList)
    desk.flood()
    assert desk.run((*PREFIX, 99)) == 0
    assert [len(pins) for pins in desk.written] == [1, 0]


def test_a_pin_before_the_blocks_are_there_keeps_them_once_they_come() -> None:
    desk = Desk()
    assert desk.pin().pins[0].stored_blocks == {"fake": 0}
    desk.run((*PREFIX, 99))
    desk.flood()
    [pin] = desk.desk.answer(ListPins()).pins  # type: ignore[union-attr]
    assert pin.stored_blocks == {"fake": 4}
    assert desk.run((*PREFIX, 99)) == 16


def test_pins_of_an_earlier_start_are_kept_from_the_first_step_on() -> None:
    first = Desk()
    first.pin()
    first.run((*PREFIX, 99))
    again = Desk(kept=first.fake.kept, pins=first.written[-1])
    again.flood()
    assert again.run((*PREFIX, 99)) == 16


def test_a_pin_ends_with_its_time() -> None:
    desk = Desk()
    desk.pin(expires_s=1010.0)
    desk.run((*PREFIX, 99))
    desk.now_s = 1010.0
    desk.flood()
    assert desk.run((*PREFIX, 99)) == 0
    assert desk.desk.answer(ListPins()) == PinList((), 0, 8, 100)
    assert desk.driver.scheduler.stats().num_pinned_blocks == 0


def test_what_cannot_be_pinned_is_refused() -> None:
    desk = Desk()
    assert refused(desk.desk.answer(Pin("p", (1, 2, 3)))) == "InvalidRequest"
    assert refused(desk.desk.answer(Pin("p", tuple(range(40))))) == "PinLimit"
    assert refused(desk.desk.answer(Pin("p", tuple(range(28)), "s", A))) == "PinLimit"
    assert refused(desk.desk.answer(Unpin("p"))) == "PinNotFound"
    desk.pin(scope=A)
    assert refused(desk.desk.answer(Unpin("p", B))) == "PinNotFound"
    alone = CacheDesk(desk.driver.kv_cache, None, Sessions())
    assert refused(alone.answer(Pin("p", PREFIX))) == "Unsupported"
    assert alone.answer(ListPins()) == PinList((), 0, 0, 0)


def test_pins_that_cannot_be_written_down_are_told_of() -> None:
    desk = Desk()

    def fail(pins: object) -> None:
        raise OSError("no space left")

    desk.desk = CacheDesk(desk.driver.kv_cache, desk.tiers, Sessions(), write_pins=fail)
    answer = desk.desk.answer(Pin("p", PREFIX))
    assert isinstance(answer, Refused)
    assert "no space left" in answer.message


@pytest.mark.parametrize("num_of_first", [0, 3])
def test_another_scope_computes_as_much_whatever_the_first_one_did(num_of_first: int) -> None:
    """Neither content nor time: the steps of the second are the same with and without the first."""
    desk = Desk(num_blocks=60, tier_size=60)
    for _ in range(num_of_first):
        desk.run((*PREFIX, 99), salt="first", scope=A)
    before = desk.driver.scheduler.stats()
    assert desk.run((*PREFIX, 99), salt="second", scope=B) == 0
    after = desk.driver.scheduler.stats()
    assert after.prompt_tokens - before.prompt_tokens == 17
    assert after.num_tier_waits - before.num_tier_waits == 0
    assert after.kv_tiers[0].num_loaded == before.kv_tiers[0].num_loaded
    assert after.num_steps - before.num_steps == 2


def test_a_public_prefix_is_shared_across_scopes_and_what_follows_is_not() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    longer = (*PREFIX, *range(50, 58), 99)
    assert desk.run(longer, salt="first", scope=A) == 0
    desk.pin("shared", is_public=True)
    assert desk.run(longer, salt="first", scope=A) == 0, "its chain starts elsewhere now"
    assert desk.run(longer, salt="first", scope=A) == 24
    assert desk.run(longer, salt="second", scope=B) == 16
    assert desk.run(longer) == 16, "public requests see the prefix, and nothing private"
    scopes = [desk.fake.origins[key].scope for key in desk.fake.origins]
    assert scopes.count(A) == 8
    assert scopes.count(B) == 2


def test_a_public_prefix_comes_from_a_tier_for_any_scope() -> None:
    first = Desk(tier_size=60)
    first.pin("shared", is_public=True)
    first.run((*PREFIX, 99), salt="first", scope=A)
    again = Desk(kept=first.fake.kept, pins=first.written[-1], tier_size=60)
    assert again.run((*PREFIX, 7), salt="second", scope=B) == 16


def test_clearing_drops_everything_but_pins() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    desk.pin()
    desk.run((*PREFIX, *range(50, 58), 99))
    assert desk.desk.answer(ClearCache(dry_run=True)) == ClearedCache({"device": 2, "fake": 2})
    assert desk.run((*PREFIX, *range(50, 58), 99)) == 24
    assert desk.desk.answer(ClearCache()) == ClearedCache({"device": 2, "fake": 2})
    assert desk.desk.answer(ClearCache()) == ClearedCache({"device": 0, "fake": 0})
    assert desk.run((*PREFIX, *range(50, 58), 99)) == 16
    assert len(desk.fake.kept[0]) == 6
    desk.desk.answer(ClearCache(unpin=True))
    assert desk.run((*PREFIX, *range(50, 58), 99)) == 0
    assert desk.desk.answer(ListPins()) == PinList((), 0, 8, 100)
    assert not desk.tiers.awaits_news
    desk.driver.kv_cache.check_integrity()


def test_one_scope_is_cleared_everywhere_and_nothing_else() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    for salt, scope in (("a", A), ("b", B), ("", b"")):
        desk.run((*PREFIX, 99), salt=salt, scope=scope)
    clear = ClearCache(scope=A)
    for order in (ClearCache(scope=A, dry_run=True), clear):
        assert desk.desk.answer(order) == ClearedCache({"device": 4, "fake": 4})
    desk.driver.step()  # with which tiers hear of it
    assert desk.desk.answer(clear) == ClearedCache({"device": 0, "fake": 0})
    assert desk.run((*PREFIX, 99), salt="b", scope=B) == desk.run((*PREFIX, 99)) == 16
    assert desk.run((*PREFIX, 99), salt="a", scope=A) == 0
    desk.driver.kv_cache.check_integrity()


def test_what_a_scope_has_offered_and_no_tier_has_yet_is_not_stored_after_it_was_cleared() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    request = Request(
        request_id="r",
        prompt_token_ids=(*PREFIX, 99),
        sampling=SamplingParams(max_tokens=1, ignore_eos=True, seed=0),
        arrival_time_s=0.0,
        cache_salt="a",
        cache_scope=A,
    )
    desk.driver.scheduler.add(request)
    desk.driver.run()
    assert desk.desk.answer(ClearCache(scope=A)) == ClearedCache({"device": 4, "fake": 0})
    desk.driver.step()
    desk.fake.work()
    desk.driver.step()
    assert not desk.fake.kept[0]
    assert not desk.tiers.awaits_news


def test_of_a_cleared_scope_pins_stay_unless_they_are_to_go_and_those_of_others_always() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    for name, salt, scope in (("mine", "a", A), ("theirs", "b", B)):
        desk.pin(name, PREFIX[:8], salt=salt, scope=scope)
        desk.run((*PREFIX, 99), salt=salt, scope=scope)
    assert desk.desk.answer(ClearCache(scope=A)) == ClearedCache({"device": 2, "fake": 2})
    desk.driver.step()
    assert desk.desk.answer(ClearCache(scope=A, unpin=True)) == ClearedCache(
        {"device": 2, "fake": 2}
    )
    assert [pin.name for pin in desk.tiers.pins.all] == ["theirs"]
    assert desk.run((*PREFIX, 99), salt="b", scope=B) == 16


def test_a_tier_that_cannot_tell_whose_blocks_it_has_lets_nothing_be_cleared() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    desk.run((*PREFIX, 99), salt="a", scope=A)

    def fail(scope: bytes) -> list[TierKeys]:
        raise OSError("no connection")

    failing = CacheDesk(desk.driver.kv_cache, desk.tiers, Sessions(), blocks_of=fail)
    answer = failing.answer(ClearCache(scope=A))
    assert isinstance(answer, Refused)
    assert "no connection" in answer.message
    assert desk.run((*PREFIX, 99), salt="a", scope=A) == 16


def test_one_level_can_be_cleared() -> None:
    desk = Desk()
    desk.run((*PREFIX, 99))
    assert desk.desk.answer(ClearCache(("device",))) == ClearedCache({"device": 4})
    assert desk.run((*PREFIX, 99)) == 16, "from the tier"
    assert refused(desk.desk.answer(ClearCache(("tape",)))) == "InvalidRequest"


def test_sessions_are_counted_and_named_to_the_tiers() -> None:
    desk = Desk(num_blocks=60, tier_size=60)
    desk.run((*PREFIX, 99), session=b"session1")
    desk.run((*PREFIX, 99, 98), session=b"session1")
    sessions = desk.driver.scheduler.stats().sessions
    assert (sessions.num_turns, sessions.num_returns) == (2, 1)
    assert (sessions.return_tokens, sessions.return_hit_tokens) == (18, 16)
    assert {origin.session for origin in desk.fake.origins.values()} == {b"session1"}
