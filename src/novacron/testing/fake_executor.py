"""FakeExecutor: an Executor without a model, which trusts the scheduler in nothing.

Its tokens are a pure function of the tokens before them, read back from a simulated paged KV memory
that holds a (position, token) for each slot. So whatever the scheduler does - chunks, preemption,
shared prefixes - must not change a request's tokens, and a block that is handed out wrongly is
found in the step that reads it. Violations of the contract in records/step.py raise
AssertionError.
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.step import (
    DraftOutput,
    ModelRunnerOutput,
    NewRequest,
    PositionLogprobs,
    ScheduledTokens,
    SchedulerOutput,
    StepResult,
)
from novacron.testing.fake_draft_model import FakeDraftModel
from novacron.testing.fake_tiers import FakeTiers, Slot

NextToken = Callable[[Sequence[int]], int]


def hashed_token(token_ids: Sequence[int]) -> int:
    """A number below 2**32 that depends on every token before it."""
    return zlib.crc32(array("q", token_ids).tobytes())


def fake_spec(
    *,
    num_blocks: int = 64,
    block_size: int = 16,
    vocab_size: int = 256,
    max_model_len: int = 1024,
    eos_token_ids: tuple[int, ...] = (0,),
) -> ModelSpec:
    """Facts about a model that does not exist."""
    return ModelSpec(
        name="fake",
        model_version="fake-1",
        architecture="FakeForCausalLM",
        vocab_size=vocab_size,
        hidden_size=4,
        max_model_len=max_model_len,
        eos_token_ids=eos_token_ids,
        dtype="float32",
        device="cpu",
        num_parameters=0,
        weight_bytes=0,
        num_blocks=num_blocks,
        block_size=block_size,
        kv_cache_bytes=0,
    )


@dataclass(slots=True)
class _RankRequest:
    """What a rank keeps of a request between steps."""

    request: NewRequest
    token_ids: list[int]
    num_computed_tokens: int = 0
    block_ids: list[int] = field(default_factory=list)


class FakeExecutor:
    """Computes steps with `next_token` (taken modulo the vocabulary), and checks each of them.

    `step_latency_s` is slept in every step, `token_latency_s` for each token in it.
    `fail_at` maps request ids to the position whose computation fails that request alone.
    `raise_at` maps step numbers to the exception that `execute` raises there: a dead replica.
    `tokens_per_step` above 1 returns several tokens at once where there are no drafts to verify.
    `draft_token` is what its draft model guesses, but for the requests in `fail_drafts_of`.
    `tiers` move blocks of that memory; what a step is going to write to is given up before.
    As many steps may be in flight as `max_steps_in_flight`; each is computed when it is submitted.
    `reads` collects (reader, writer) ids of every slot that a request read: who saw whose blocks.
    """

    def __init__(
        self,
        spec: ModelSpec | None = None,
        *,
        next_token: NextToken = hashed_token,
        step_latency_s: float = 0.0,
        token_latency_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        fail_at: Mapping[str, int] | None = None,
        raise_at: Mapping[int, Exception] | None = None,
        tokens_per_step: int = 1,
        draft_token: NextToken | None = None,
        fail_drafts_of: Collection[str] = (),
        tiers: FakeTiers | None = None,
        max_steps_in_flight: int = 1,
    ) -> None:
        self._spec = spec or fake_spec()
        self._draft_model = draft_token and FakeDraftModel(self._spec, draft_token, fail_drafts_of)
        self._next_token = next_token
        self._step_latency_s = step_latency_s
        self._token_latency_s = token_latency_s
        self._sleep = sleep
        self._fail_at = dict(fail_at or {})
        self._raise_at = dict(raise_at or {})
        self._tokens_per_step = tokens_per_step

        self._requests: dict[str, _RankRequest] = {}
        self._memory: dict[tuple[int, int], Slot] = {}  # by block and offset
        self.tiers = tiers
        if tiers is not None:
            tiers.attach(self._memory, self._spec.block_size)
        self._last_step = 0
        self.max_steps_in_flight = max_steps_in_flight
        self._computed: deque[ModelRunnerOutput] = deque()
        self.reads: set[tuple[str, str]] = set()
        self.is_shut_down = False

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def shutdown(self) -> None:
        self.is_shut_down = True

    def move_blocks(self, orders: BlockOrders) -> None:
        assert self.tiers is not None, "there are no tiers"
        self.tiers.order(orders)

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None if self.tiers is None else self.tiers.news()

    def blocks_of(self, scope: bytes) -> list[TierKeys]:
        return [] if self.tiers is None else self.tiers.blocks_of(scope)

    def torn_blocks(self) -> list[TierKeys]:
        return []

    def lose_blocks(self) -> None:
        """As an executor does that raises BlocksLost."""
        self._memory.clear()
        if self._draft_model is not None:
            self._draft_model.forget_requests()
        self._requests.clear()
        self._computed.clear()
        if self.tiers is not None:
            self.tiers.lose_blocks()

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        assert not self.is_shut_down, "draft() after shutdown()"
        assert scheduler_output.step > self._last_step, "steps must grow"
        assert self._draft_model is not None, "there is no draft model"
        return self._draft_model.draft(scheduler_output)

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        assert len(self._computed) < self.max_steps_in_flight, "too many steps in flight"
        self._computed.append(self.execute(scheduler_output))

    def collect(self) -> ModelRunnerOutput:
        return self._computed.popleft()

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        assert not self.is_shut_down, "execute() after shutdown()"
        assert scheduler_output.step > self._last_step, "steps must grow"
        self._last_step = scheduler_output.step
        if scheduler_output.step in self._raise_at:
            raise self._raise_at[scheduler_output.step]
        self._wait(scheduler_output.num_tokens)

        if self.tiers is not None:
            self.tiers.begin_step(scheduler_output)
        self._drop(scheduler_output)
        introduced = self._introduce(scheduler_output)
        for part in scheduler_output.scheduled:
            self._extend(part, is_new=part.request_id in introduced)
        self._write_all(scheduler_output.scheduled, introduced)
        results = tuple(
            self._compute(part, scheduler_output.token_masks.get(part.request_id, ()))
            for part in scheduler_output.scheduled
        )
        output = ModelRunnerOutput(step=scheduler_output.step, results=results)
        if self._draft_model is not None:
            self._draft_model.follow(scheduler_output, output)
        return output

    # What a rank keeps

    def _wait(self, num_tokens: int) -> None:
        seconds = self._step_latency_s + num_tokens * self._token_latency_s
        if seconds > 0:
            self._sleep(seconds)

    def _drop(self, step: SchedulerOutput) -> None:
        gone = step.finished_ids + step.preempted_ids
        assert len(set(gone)) == len(gone), f"dropped twice: {gone}"
        for request_id in gone:
            assert request_id in self._requests, f"{request_id} is dropped but not held"
            del self._requests[request_id]

    def _introduce(self, step: SchedulerOutput) -> set[str]:
        scheduled = Counter(part.request_id for part in step.scheduled)
        assert not scheduled or max(scheduled.values()) == 1, "a request is scheduled twice"
        for new in step.new_requests:
            assert new.request_id not in self._requests, f"{new.request_id} is introduced twice"
            assert new.request_id in scheduled, f"{new.request_id} is new but not scheduled"
            assert 0 < new.num_prompt_tokens <= len(new.token_ids)
            assert all(0 <= token_id < self._spec.vocab_size for token_id in new.token_ids)
            self._requests[new.request_id] = _RankRequest(new, list(new.token_ids))
        return {new.request_id for new in step.new_requests}

    def _extend(self, part: ScheduledTokens, *, is_new: bool) -> None:
        block_size = self._spec.block_size
        held = self._requests.get(part.request_id)
        assert held is not None, f"{part.request_id} is scheduled but was not introduced"
        if is_new:  # starts behind a cached prefix of whole blocks
            assert part.start % block_size == 0, f"{part} starts inside a block"
            assert part.start == 0 or held.request.pooling != "mean", f"{part} cannot be pooled"
            held.num_computed_tokens = part.start
        assert part.start == held.num_computed_tokens, f"{part} leaves a gap or computes again"
        assert part.num_tokens > 0, f"{part} is empty"
        end = part.start + part.num_tokens
        known = len(held.token_ids)
        assert part.num_known_tokens <= known, f"{part} goes past the known tokens"
        if part.draft_token_ids:
            assert part.start < part.num_known_tokens == known, f"{part} guesses from the middle"
            assert held.request.pooling is None, f"{part} guesses where no token is wanted"
        assert end <= self._spec.max_model_len, f"{part} goes past the context"
        held.block_ids.extend(part.new_block_ids)
        assert all(0 <= block_id < self._spec.num_blocks for block_id in part.new_block_ids)
        assert len(set(held.block_ids)) == len(held.block_ids), f"{part} holds a block twice"
        assert len(held.block_ids) * block_size >= end, f"{part} is not covered by blocks"
        held.num_computed_tokens = end

    # The simulated KV memory

    def _slot(self, held: _RankRequest, position: int) -> tuple[int, int]:
        index, offset = divmod(position, self._spec.block_size)
        return held.block_ids[index], offset

    def _write_all(self, parts: Sequence[ScheduledTokens], introduced: set[str]) -> None:
        """Write the whole step before anybody reads, as every layer of a real model does."""
        holders: dict[int, list[str]] = {}
        for request_id, held in self._requests.items():
            for block_id in held.block_ids:
                holders.setdefault(block_id, []).append(request_id)
        written: set[tuple[int, int]] = set()
        for part in parts:
            held = self._requests[part.request_id]
            is_spoilt = self._fails(part)
            for position in range(part.start, part.start + part.num_tokens):
                slot = self._slot(held, position)
                assert slot not in written, f"{part} writes a slot that another one writes"
                written.add(slot)
                for other in holders[slot[0]]:  # only newcomers of this step may share it already
                    assert other == part.request_id or other in introduced, (
                        f"{part} writes into block {slot[0]}, which {other} shares"
                    )
                token_id = (held.token_ids + list(part.draft_token_ids))[position]
                self._memory[slot] = Slot(position, token_id, part.request_id, is_spoilt)

    def _fails(self, part: ScheduledTokens) -> bool:
        position = self._fail_at.get(part.request_id)
        return position is not None and part.start <= position < part.start + part.num_tokens

    def _read(self, held: _RankRequest, token_ids: Sequence[int]) -> list[Slot]:
        """The slots of `token_ids`, which must be what they hold."""
        slots = []
        for expected in enumerate(token_ids):
            slot = self._memory.get(self._slot(held, expected[0]))
            assert slot is not None, f"{held.request.request_id} reads {expected} unwritten"
            assert (slot.position, slot.token_id) == expected, (
                f"{held.request.request_id} reads {slot} where {expected} should be"
            )
            slots.append(slot)
        self.reads.update((held.request.request_id, slot.writer_id) for slot in slots)
        return slots

    # Results

    def _compute(self, part: ScheduledTokens, token_masks: tuple[bytes, ...]) -> StepResult:
        held = self._requests[part.request_id]
        seen = held.token_ids[: part.num_known_tokens]
        slots = self._read(held, [*seen, *part.draft_token_ids])
        if any(slot.is_spoilt for slot in slots[: len(seen)]):
            return StepResult(part.request_id, error="the logits are not finite (injected)")
        prompt_logprobs = self._prompt_logprobs(held, part)
        if len(seen) < len(held.token_ids):
            return StepResult(part.request_id, prompt_logprobs=prompt_logprobs)
        if held.request.pooling is not None:
            embedding = (float(self._next_token(seen)), float(len(seen)))
            return StepResult(part.request_id, embedding=embedding)
        if part.draft_token_ids:
            is_spoilt = [slot.is_spoilt for slot in slots[len(seen) :]]
            token_ids = self._verify(seen, part.draft_token_ids, is_spoilt, token_masks)
            held.num_computed_tokens = part.num_known_tokens + len(token_ids) - 1
        else:
            token_ids = self._sample(seen, token_masks)
        held.token_ids.extend(token_ids)
        wanted = held.request.sampling.logprobs is not None
        return StepResult(
            part.request_id,
            token_ids=token_ids,
            logprobs=tuple(map(_certain, token_ids)) if wanted else (),
            prompt_logprobs=prompt_logprobs,
        )

    def _sample(self, seen: list[int], token_masks: tuple[bytes, ...]) -> tuple[int, ...]:
        num_tokens = 1 if token_masks else self._tokens_per_step
        for _ in range(num_tokens):
            seen.append(self._choose(seen, token_masks[0] if token_masks else None))
        return tuple(seen[-num_tokens:])

    def _verify(
        self,
        seen: list[int],
        drafts: Sequence[int],
        is_spoilt: Sequence[bool],
        token_masks: tuple[bytes, ...],
    ) -> tuple[int, ...]:
        """The drafts that are right, and the token after them."""
        assert not token_masks or len(token_masks) == len(drafts) + 1, "a mask for each place"
        masks = token_masks or (None,) * (len(drafts) + 1)
        chosen = [self._choose(seen, masks[0])]
        for draft, spoilt, mask in zip(drafts, is_spoilt, masks[1:], strict=True):
            if chosen[-1] != draft or spoilt:
                break
            chosen.append(self._choose([*seen, *chosen], mask))
        return tuple(chosen)

    def _choose(self, seen: Sequence[int], token_mask: bytes | None) -> int:
        allowed: Sequence[int] = range(self._spec.vocab_size)
        if token_mask is not None:
            bits = int.from_bytes(token_mask, "little")
            allowed = [token_id for token_id in allowed if bits >> token_id & 1]
            assert allowed, "the mask allows no token"
        return allowed[self._next_token(seen) % len(allowed)]

    def _prompt_logprobs(
        self, held: _RankRequest, part: ScheduledTokens
    ) -> tuple[PositionLogprobs, ...]:
        if held.request.sampling.prompt_logprobs is None:
            return ()
        end = min(part.start + part.num_tokens, held.request.num_prompt_tokens - 1)
        return tuple(map(_certain, held.token_ids[part.start + 1 : end + 1]))


def _certain(token_id: int) -> PositionLogprobs:
    return PositionLogprobs(token_ids=(token_id,), logprobs=(0.0,), rank=1)
