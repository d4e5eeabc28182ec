"""FakeDraftModel: the draft model of a FakeExecutor, which trusts the scheduler as little.

Its simulated KV memory holds in each slot a digest of all tokens up to there. Guessing reads every
slot before it, so one that was never computed, or for another text, is found at once.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from novacron.records.output import ModelSpec
from novacron.records.step import (
    DraftOutput,
    DraftPart,
    DraftPass,
    ModelRunnerOutput,
    SchedulerOutput,
)

_SPOILT = -1  # what a request leaves behind whose numbers were not usable


@dataclass(slots=True)
class _Held:
    """What the rank of a draft model keeps of a request between steps."""

    token_ids: list[int]
    block_ids: list[int] = field(default_factory=list)


class FakeDraftModel:
    """Guesses `draft_token` of the tokens so far, taken modulo the vocabulary.

    For requests in `fail_for`, and who reads what they left, it makes no guess, as if its numbers
    were not finite.
    """

    def __init__(
        self,
        spec: ModelSpec,
        draft_token: Callable[[Sequence[int]], int],
        fail_for: Collection[str] = (),
    ) -> None:
        self._spec = spec
        self._draft_token = draft_token
        self._fail_for = fail_for
        self._requests: dict[str, _Held] = {}
        self._memory: dict[tuple[int, int], int] = {}  # by block and offset
        self._last_step = 0

    def draft(self, step: SchedulerOutput) -> DraftOutput:
        assert step.drafting, "there is nothing to draft"
        self._take_in(step)
        ids = [work.request_id for work in step.drafting]
        assert len(set(ids)) == len(ids), "a request is drafted for twice"
        for work in step.drafting:
            self._check(work)
        for work in step.drafting:  # all, before anybody reads
            held = self._requests[work.request_id]
            end = work.start + work.num_tokens
            self._write(held, work.start, held.token_ids[:end], work.request_id in self._fail_for)
        num_tokens = sum(work.num_tokens for work in step.drafting)
        drafts = tuple(map(self._guess, step.drafting))
        return DraftOutput(step.step, drafts, (DraftPass(num_tokens, 0.0),))

    def follow(self, step: SchedulerOutput, result: ModelRunnerOutput) -> None:
        self._take_in(step)
        for one in result.results:
            self._requests[one.request_id].token_ids.extend(one.token_ids)

    def forget_requests(self) -> None:
        """All of them; what its blocks hold stays."""
        self._requests.clear()

    def _take_in(self, step: SchedulerOutput) -> None:
        if step.step == self._last_step:
            return
        self._last_step = step.step
        for request_id in step.finished_ids + step.preempted_ids:
            del self._requests[request_id]
        for new in step.new_requests:
            self._requests[new.request_id] = _Held(list(new.token_ids))
        for part in step.scheduled:
            self._requests[part.request_id].block_ids.extend(part.new_block_ids)

    def _check(self, work: DraftPart) -> None:
        held = self._requests[work.request_id]
        end = work.start + work.num_tokens
        assert work.num_tokens > 0, f"{work} is empty"
        assert work.num_drafts >= 0
        assert end <= len(held.token_ids), f"{work} goes past the known tokens"
        if work.num_drafts:
            assert end == len(held.token_ids), f"{work} guesses from the middle"
            assert end + work.num_drafts <= self._spec.max_model_len, f"{work} leaves the context"
            assert end + work.num_drafts <= len(held.block_ids) * self._spec.block_size, (
                f"{work} is not covered by blocks"
            )

    def _guess(self, work: DraftPart) -> tuple[int, ...]:
        held = self._requests[work.request_id]
        if not self._read(held, held.token_ids[: work.start + work.num_tokens]):
            return ()
        drafts: list[int] = []
        while len(drafts) < work.num_drafts:
            if drafts:
                seen = [*held.token_ids, *drafts]
                self._write(held, len(seen) - 1, seen, is_spoilt=False)
                assert self._read(held, seen)
            known = [*held.token_ids, *drafts]
            drafts.append(self._draft_token(known) % self._spec.vocab_size)
        return tuple(drafts)

    def _write(self, held: _Held, start: int, token_ids: list[int], is_spoilt: bool) -> None:
        for place, digest in enumerate(_digests(token_ids)):
            if place >= start:
                self._memory[self._slot(held, place)] = _SPOILT if is_spoilt else digest

    def _read(self, held: _Held, token_ids: list[int]) -> bool:
        """Whether all is usable; AssertionError if it is not what was to be there."""
        for place, digest in enumerate(_digests(token_ids)):
            found = self._memory.get(self._slot(held, place))
            if found == _SPOILT:
                return False
            assert found == digest, f"the draft model reads {found} at position {place}"
        return True

    def _slot(self, held: _Held, position: int) -> tuple[int, int]:
        index, offset = divmod(position, self._spec.block_size)
        return held.block_ids[index], offset


def _digests(token_ids: Sequence[int]) -> list[int]:
    """One for each beginning of the text."""
    digests, digest = [], 0
    for token_id in token_ids:
        digest = zlib.crc32(array("q", (token_id,)).tobytes(), digest)
        digests.append(digest)
    return digests
