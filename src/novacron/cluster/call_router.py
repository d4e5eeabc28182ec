"""CallRouter: gathers what router.py decides by, and remembers what came of it.

No I/O, and no waiting: belongs to one event loop. All that is known of load and caches is what this
process has sent and received, so a decision asks nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import msgspec

from novacron.cluster.known_prefixes import prompt_chain
from novacron.cluster.latency import Demand
from novacron.cluster.replica import Replica
from novacron.cluster.replica_load import CallLoad
from novacron.cluster.router import choose
from novacron.cluster.session_homes import SessionHomes
from novacron.cluster.speed_estimate import SpeedEstimate
from novacron.records.block import BlockHash
from novacron.records.output import RequestOutput
from novacron.records.request import Request
from novacron.records.routing import RoutingDecision

_USUAL_OUTPUT_TOKENS: Final = 64.0
_SHARE_OF_NEWEST: Final = 0.05

Clock = Callable[[], float]


class RoutedCall:
    """Requests that share a prompt, on their replica. Whoever has it calls `end`."""

    def __init__(
        self,
        router: CallRouter,
        replica: Replica,
        requests: Sequence[Request],
        chain: Sequence[BlockHash],
        decision: RoutingDecision,
        load: CallLoad,
    ) -> None:
        self.replica = replica
        self.decision = decision
        self._router = router
        self._load = load
        self._chain = chain
        self._first = requests[0]
        self._output_token_ids: dict[str, list[int]] = {one.request_id: [] for one in requests}
        num_believed = decision.reused_tokens // router.block_size
        self._last_uses = [replica.known.last_use(key) for key in chain[:num_believed]]
        self._is_to_compare = router.finds_prefixes_of(self._first)

    def see(self, output: RequestOutput) -> None:
        self._load.see(output)
        token_ids = self._output_token_ids.get(output.request_id)
        if token_ids is None:
            return
        token_ids.extend(output.token_ids)
        if self._is_to_compare and token_ids and output.request_id == self._first.request_id:
            self._is_to_compare = False
            self._correct(output.num_cached_tokens)
        if output.finished:
            self._router.note_length(len(token_ids))
            self._remember_answer(output.request_id)

    def end(self) -> None:
        self._load.end()

    def _correct(self, num_cached_tokens: int) -> None:
        """The replica had less than was believed: what was used before that has gone as well."""
        self.replica.note_reuse(self.decision.reused_tokens, num_cached_tokens)
        num_found = num_cached_tokens // self._router.block_size
        if num_found < len(self._last_uses):
            self.replica.known.forget_until(self._last_uses[num_found])

    def _remember_answer(self, request_id: str) -> None:
        """The next turn of a conversation has the answer in its prompt."""
        first = self._first
        tokens = first.prompt_token_ids + first.output_token_ids
        tokens += tuple(self._output_token_ids.pop(request_id)[:-1])  # the last was not computed
        if len(tokens) >= (len(self._chain) + 1) * self._router.block_size:
            chain = self._router.chain_of(tokens, first.cache_salt, self._chain)
            self.replica.known.use(chain)


class CallRouter:
    """`on_decision` gets every decision."""

    def __init__(
        self,
        *,
        knows_prefixes: bool,
        clock: Clock = time.perf_counter,
        on_decision: Callable[[RoutingDecision], None] | None = None,
    ) -> None:
        self.block_size = 16  # until a model is loaded
        self._knows_prefixes = knows_prefixes
        self._clock = clock
        self._on_decision = on_decision
        self._homes = SessionHomes()
        self._speed = SpeedEstimate()
        self._mean_output_tokens = _USUAL_OUTPUT_TOKENS
        self._turn = 0

    def send(
        self, replicas: Iterable[Replica], requests: Sequence[Request], without: Container[str] = ()
    ) -> RoutedCall | None:
        """Choose a replica for requests that share a prompt, and count them there; None if none but
        those of `without` is ready."""
        started_s = self._clock()
        asked = {one.replica_id: one for one in replicas if one.replica_id not in without}
        for one in asked.values():
            news = one.measured.news(one.client.stats)
            if news is not None:
                self._speed.see(*news)
        first = requests[0]
        tokens = first.prompt_token_ids + first.output_token_ids
        chain = self.chain_of(tokens, first.cache_salt)
        findable = chain[: (len(tokens) - 1) // self.block_size]  # the last token is computed
        if not self.finds_prefixes_of(first):
            findable = []
        speed = self._speed.speed
        decision = choose(
            [one.as_candidate(findable, self.block_size, speed) for one in asked.values()],
            self._demand(requests, len(tokens)),
        )
        if decision is None:
            return None
        replica = asked[decision.target]
        self._turn += 1
        load = replica.load.add(requests, decision.reused_tokens)
        routed = RoutedCall(self, replica, requests, chain, decision, load)
        replica.known.use(chain)
        self._homes.settle(first.session, replica.replica_id)
        decision = msgspec.structs.replace(decision, seconds=self._clock() - started_s)
        replica.note_choice(decision, self._turn)
        if self._on_decision is not None:
            self._on_decision(decision)
        return routed

    def chain_of(
        self, tokens: Sequence[int], salt: str, begin: Sequence[BlockHash] = ()
    ) -> list[BlockHash]:
        """`begin` is the chain of the first of these tokens."""
        return prompt_chain(tokens, self.block_size, salt, begin) if self._knows_prefixes else []

    def finds_prefixes_of(self, request: Request) -> bool:
        """Whether the engine looks for cached blocks at all."""
        needs_whole = request.pooling is not None or request.sampling.prompt_logprobs is not None
        return self._knows_prefixes and not needs_whole

    def note_length(self, num_output_tokens: int) -> None:
        self._mean_output_tokens += _SHARE_OF_NEWEST * (
            num_output_tokens - self._mean_output_tokens
        )

    def _demand(self, requests: Sequence[Request], num_tokens: int) -> Demand:
        first = requests[0]
        expected = self._mean_output_tokens
        if first.sampling.max_tokens is not None:
            left = first.sampling.max_tokens - len(first.output_token_ids)
            expected = min(expected, float(max(1, left)))
        return Demand(
            num_tokens=num_tokens,
            num_requests=len(requests),
            output_tokens=1.0 if first.pooling is not None else expected,
            home=self._homes.home_of(first.session),
        )
