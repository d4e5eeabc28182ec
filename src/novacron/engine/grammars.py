"""The grammars of constrained requests, beside the running steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from novacron.engine.structured_output import GrammarCompiler, GrammarState
from novacron.errors import NovaCronError
from novacron.records.request import Request
from novacron.records.step import ModelRunnerOutput, ScheduledTokens, SchedulerOutput

GrammarStates = dict[str, GrammarState]


class Grammars:
    """Grammar states of constrained requests, by request id; compiles on a thread of its own."""

    def __init__(self, make_compiler: Callable[[], GrammarCompiler]) -> None:
        self._make_compiler = make_compiler
        self._compiler: GrammarCompiler | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._compiling: dict[str, tuple[Request, Future[GrammarState]]] = {}
        self._states: dict[str, GrammarState] = {}

    @property
    def is_compiling(self) -> bool:
        return bool(self._compiling)

    @property
    def compiling_ids(self) -> tuple[str, ...]:
        return tuple(self._compiling)

    def compile(self, request: Request) -> None:
        future = self._thread.submit(self._state_for, request)
        self._compiling[request.request_id] = (request, future)

    def compiled(self) -> Iterable[tuple[Request, NovaCronError | None]]:
        """Requests whose grammar is ready, or refused, since the last call."""
        ready = [entry for entry in self._compiling.values() if entry[1].done()]
        for request, future in ready:
            del self._compiling[request.request_id]
            error = future.exception()
            if error is None:
                self._states[request.request_id] = future.result()
                yield request, None
            elif isinstance(error, NovaCronError):
                yield request, error
            else:
                raise error

    def constrain(self, decision: SchedulerOutput) -> tuple[SchedulerOutput, GrammarStates]:
        """The decision with the token masks of its constrained requests, and without the drafts
        that their grammars forbid. And the states of these grammars, which the result of the step
        advances: a request may end meanwhile, and another one come with its id."""
        if not self._states:
            return decision, {}
        states = {
            part.request_id: self._states[part.request_id]
            for part in decision.scheduled
            if part.request_id in self._states
        }
        masks = {
            part.request_id: states[part.request_id].masks(part.draft_token_ids)
            for part in decision.scheduled
            if part.request_id in states
        }
        parts = tuple(
            _keep_drafts(part, len(masks[part.request_id]) - 1)
            if part.request_id in masks
            else part
            for part in decision.scheduled
        )
        return msgspec.structs.replace(decision, scheduled=parts, token_masks=masks), states

    def drop(self, request_id: str) -> bool:
        """Forget a request; True if its grammar was still being compiled."""
        self._states.pop(request_id, None)
        entry = self._compiling.pop(request_id, None)
        if entry is not None:
            entry[1].cancel()
        return entry is not None

    def shutdown(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _state_for(self, request: Request) -> GrammarState:
        spec = request.sampling.structured_output
        assert spec is not None
        if self._compiler is None:
            self._compiler = self._make_compiler()
        state = self._compiler.compile(spec)
        if request.output_token_ids:
            state.accept(request.output_token_ids)
        return state


def advance(states: GrammarStates, result: ModelRunnerOutput) -> None:
    if not states:
        return
    for part in result.results:
        if part.token_ids and part.request_id in states:
            states[part.request_id].accept(part.token_ids)


def _keep_drafts(part: ScheduledTokens, count: int) -> ScheduledTokens:
    """The part with its first `count` drafts only."""
    drafts = part.draft_token_ids
    if count == len(drafts):
        return part
    return msgspec.structs.replace(
        part,
        num_tokens=part.num_tokens - len(drafts) + count,
        draft_token_ids=drafts[:count],
    )
