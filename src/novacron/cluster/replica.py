"""Replica: one engine of several equal ones, and what is known of it here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from novacron.cluster.known_prefixes import KnownPrefixes
from novacron.cluster.latency import Candidate, Speed
from novacron.cluster.replica_load import ReplicaLoad
from novacron.cluster.replica_totals import ReplicaTotals
from novacron.cluster.speed_estimate import EngineTotals
from novacron.engine.client import EngineState, ReplicaStatus, status_of
from novacron.engine.engine_group import MemberClient
from novacron.records.block import BlockHash
from novacron.records.output import PREFETCH_BUFFER, EngineStats, ModelSpec
from novacron.records.routing import RoutingDecision

_KNOWN_BLOCKS_OF_ALL: Final = 2**18  # some 40 MB
_FEWEST_KNOWN_BLOCKS: Final = 4096

logger = logging.getLogger(__name__)


class Replica:
    """`on_change` is called after its state has changed."""

    def __init__(
        self,
        replica_id: str,
        client: MemberClient,
        *,
        num_replicas: int,
        max_num_seqs: int,
        on_change: Callable[[], None],
        successor_of: Replica | None = None,
    ) -> None:
        self.replica_id = replica_id
        self.client = client
        self.load = ReplicaLoad()
        self._most_known_blocks = max(_FEWEST_KNOWN_BLOCKS, _KNOWN_BLOCKS_OF_ALL // num_replicas)
        self.known = KnownPrefixes(self._most_known_blocks)
        self.measured = EngineTotals()
        self.num_expected_tokens = 0  # of prompts, that it was believed to have cached
        self.num_found_tokens = 0  # of these
        self._max_num_seqs = max_num_seqs
        self._on_change = on_change
        self._totals = ReplicaTotals()
        self._num_starts: int = 0 if successor_of is None else successor_of._num_starts
        self._turn = 0
        self._num_routed: Counter[str] = Counter()
        self._last_decision: RoutingDecision | None = None
        self._last_state = client.state
        client.on_state_change(self._note_state)
        if client.state is EngineState.READY:
            self._begin()

    @property
    def is_ready(self) -> bool:
        return self.client.state is EngineState.READY

    @property
    def stats(self) -> EngineStats:
        """Totals are of all its engine processes."""
        return self._totals.with_earlier(self.client.stats)

    def as_candidate(self, chain: Sequence[BlockHash], block_size: int, speed: Speed) -> Candidate:
        client = self.client
        stats = client.stats
        return Candidate(
            replica_id=self.replica_id,
            is_ready=self.is_ready,
            num_live=self.load.num_live,
            queued_tokens=self.load.queued_tokens,
            max_num_seqs=self._max_num_seqs,
            free_tokens=(stats.num_blocks - stats.num_used_blocks) * block_size,
            cached_tokens=self.known.num_known(chain) * block_size,
            speed=speed,
            turn=self._turn,
        )

    def note_choice(self, decision: RoutingDecision, turn: int) -> None:
        self._turn = turn
        self._num_routed[decision.why] += 1
        self._last_decision = decision

    def status(self) -> ReplicaStatus:
        one = status_of(self.client, self.replica_id)
        return ReplicaStatus(
            replica_id=self.replica_id,
            state=one.state,
            epoch=max(0, self._num_starts - 1),
            spec=one.spec,
            stats=self.stats,
            num_restarts=one.num_restarts,
            engine_pid=one.engine_pid,
            num_live=self.load.num_live,
            queued_tokens=self.load.queued_tokens,
            num_routed=dict(self._num_routed),
            last_decision=self._last_decision,
            expected_reuse_tokens=self.num_expected_tokens,
            found_reuse_tokens=self.num_found_tokens,
        )

    def note_reuse(self, expected_tokens: int, found_tokens: int) -> None:
        self.num_expected_tokens += expected_tokens
        self.num_found_tokens += min(expected_tokens, found_tokens)

    def _begin(self) -> None:
        self._num_starts += 1
        self._totals.begin()
        self.known.resize(min(self._most_known_blocks, _num_blocks_held(self.client.spec)))

    def _note_state(self, state: EngineState) -> None:
        if state is EngineState.READY:
            self._begin()
        elif state is not EngineState.DRAINING:  # its process is gone, and what it had in memory
            self.known.clear()
            self._totals.end(self.client.stats)
        if self._last_state is EngineState.READY and state is EngineState.LOADING:
            logger.warning("%s is lost; new requests go to others", self.replica_id)
        self._last_state = state
        self._on_change()


def not_begun(replica_id: str, state_of_all: EngineState) -> ReplicaStatus:
    """A replica whose engine waits for the first one."""
    is_over = state_of_all in (EngineState.DEAD, EngineState.UNLOADED)
    return ReplicaStatus(
        replica_id=replica_id,
        state=state_of_all if is_over else EngineState.LOADING,
        epoch=0,
        spec=None,
        stats=EngineStats(),
        num_restarts=0,
        engine_pid=None,
    )


def _num_blocks_held(spec: ModelSpec) -> int:
    """By its device and in its RAM; uncompressed, which most are."""
    block_bytes = max(1, spec.kv_cache_bytes // max(1, spec.num_blocks))
    in_ram = sum(t.capacity_bytes for t in spec.kv_tiers if t.kind in ("ram", PREFETCH_BUFFER))
    return spec.num_blocks + in_ram // block_bytes
