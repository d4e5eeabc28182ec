"""HostedStage: a stage of a pipeline on a host of its own, until the end of its group.

The rank that leads says which layers it has; it loads them from its own copy of the model, takes
hidden states over from the stage before, and sends what it makes of them to the next one.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from novacron.config.engine import CacheConfig, ModelConfig
from novacron.errors import NovaCronError
from novacron.executor.blueprint import META, Blueprint, draw_blueprint
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.hosts.hops import HopEntry, HopExit, Send
from novacron.executor.hosts.host_speed import measure_bytes_per_s
from novacron.executor.hosts.orders import (
    Join,
    Load,
    Loading,
    Offer,
    RunStep,
    StageFailed,
    StageReady,
)
from novacron.executor.hosts.stage_blocks import allocate_stage_cache
from novacron.executor.hosts.stage_post import GroupOver, StagePost
from novacron.executor.placement import keep_freed_memory, threads_of_replica
from novacron.executor.worker import load_model, make_batch
from novacron.parallel.dims import ParallelDims
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.links import OnLoss, OpenLink, Received, TensorLink, TensorListener
from novacron.parallel.messages.tensor_message import NO_DEADLINE
from novacron.parallel.stages import stages_ending
from novacron.runner.stage_step import StageStep
from novacron.runner.step_arrays import StepArrays

Prepare = Callable[[ModelConfig, CacheConfig], tuple[ModelConfig, CacheConfig, Path]]
Computing = Callable[[bool], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageHost:
    """What a rank has of its host. `prepare` makes of the settings that a leader wants those that
    this host has, and the path of the model: it raises NovaCronError. `on_loss` ends this rank;
    `begin` is told what the group has agreed on, `computing` when a step begins and ends."""

    listener: TensorListener
    open_link: OpenLink
    prepare: Prepare
    on_loss: OnLoss
    begin: Callable[[Join], None] = lambda join: None
    computing: Computing = lambda begins: None


def serve_group(host: StageHost) -> str:
    """Be a rank of the first group that asks. Why that is over, as half a sentence."""
    post = StagePost(host.listener)
    try:
        join = post.wait_for_group()
        host.begin(join)
        try:
            stage = HostedStage(join, host, post)
        except NovaCronError as error:
            post.tell(StageFailed(type(error).__name__, str(error)))
            return f"it cannot be served: {error}"
        try:
            post.tell(StageReady(stage.digest))
            while True:
                order, header = post.next_order()
                if not isinstance(order, RunStep):
                    return f"an order {type(order).__name__} came where a step was due"
                stage.run(order, header.deadline_ns)
        finally:
            stage.close()
    except (GroupOver, HandoverLost) as over:
        return str(over)


class HostedStage:
    """Loaded when made. Raises NovaCronError, and GroupOver."""

    def __init__(self, join: Join, host: StageHost, post: StagePost) -> None:
        self._host, self._deadline_ns = host, NO_DEADLINE
        self._next: TensorLink | None = None
        model, cache, path = host.prepare(join.model, join.cache)
        num_threads = threads_of_replica(model)
        torch.set_num_threads(num_threads)
        keep_freed_memory()
        whole = draw_blueprint(model, path, num_threads)
        post.tell(
            Offer(
                host=socket.gethostname(),
                memory=measure_device_memory(whole.device, cache),
                bytes_per_s=measure_bytes_per_s(),
                computes=what_computes(whole),
            )
        )
        load, _ = post.next_order()
        if not isinstance(load, Load):
            raise GroupOver(f"an order {type(load).__name__} came where a part was due")
        post.expect_steps_of(load.previous_key)
        dims = ParallelDims(1, join.num_stages)
        blueprint = whole.of_rank(join.rank, dims, stages_ending(load.stops))
        decoder, self.digest = load_model(
            blueprint, model, lambda fraction: post.tell(Loading(fraction))
        )
        if blueprint.kernels.has_threads:
            torch.set_num_threads(1)
        decoder.set_context(load.max_model_len)
        kv_tensors = allocate_stage_cache(blueprint, load.num_blocks, cache)
        self._batch = make_batch(
            blueprint,
            join.scheduler,
            block_size=cache.block_size,
            max_model_len=load.max_model_len,
        )
        self._block_size, self._blocks = cache.block_size, kv_tensors
        config, stage = blueprint.config, blueprint.stage
        ring_KTD = torch.zeros(
            (1, join.scheduler.max_num_batched_tokens, config.hidden_size), dtype=blueprint.dtype
        )

        def next_forward() -> Received:
            host.computing(False)
            received = post.next_forward()
            host.computing(True)
            return received

        entry = HopEntry(ring_KTD, next_forward)
        exits = HopExit(
            self._send_on(join, load, post),
            0 if stage.is_last else stage.layers.stop,
            join.compression,
            lambda: self._deadline_ns,
            lambda: entry.error,
        )
        self._step = StageStep(decoder, kv_tensors.layers, self._batch, entry, exits)

    def _send_on(self, join: Join, load: Load, post: StagePost) -> Send:
        if not load.next_host:
            return post.hand_back
        self._next = self._host.open_link(
            load.next_host, post.epoch, join.rank, join.rank + 1, self._host.on_loss
        )
        return self._next.send

    def close(self) -> None:
        if self._next is not None:
            self._next.close()

    def run(self, order: RunStep, deadline_ns: int) -> None:
        """Raises HandoverLost and GroupOver."""
        self._host.computing(True)
        self._deadline_ns = deadline_ns
        if order.zeroed:
            self._blocks.taint(order.zeroed)
            self._blocks.clean(order.zeroed)
        arrays = arrays_of(order, self._block_size)
        counts = order.num_tokens, order.num_requests, arrays.block_tables_RB.shape[1]
        with torch.inference_mode():
            self._step.compute(self._batch.copied_input(arrays, *counts), 0)
        self._host.computing(False)


def what_computes(blueprint: Blueprint) -> str:
    """What must be alike on all hosts, beside the files."""
    kernels, weights = blueprint.kernels, blueprint.build(META).precision_identity
    return (
        f"{blueprint.dtype_name} on {blueprint.device.type}, {kernels.name} kernels "
        f"{kernels.weight_layout} {kernels.kv_layout}, weights {weights or 'as stored'}"
    )


def arrays_of(order: RunStep, block_size: int) -> StepArrays:
    """The arrays of a step, but for its tokens."""
    tokens, requests = order.num_tokens, order.num_requests
    tables = np.frombuffer(order.tables, np.int32).reshape(requests, -1)
    arrays = StepArrays(
        token_ids_T=np.zeros(tokens, np.int64),
        positions_T=np.empty(tokens, np.int64),
        slots_T=np.empty(tokens, np.int64),
        lengths_R=np.empty(requests, np.int64),
        rows_R3=np.frombuffer(order.rows, np.int64).reshape(requests, 3),
        block_tables_RB=tables.astype(np.int64),
    )
    arrays.fill_in_places(block_size)
    return arrays


def order_of(arrays: StepArrays, zeroed: tuple[int, ...]) -> RunStep:
    """The same, to be sent."""
    return RunStep(
        num_tokens=len(arrays.token_ids_T),
        num_requests=len(arrays.lengths_R),
        rows=np.ascontiguousarray(arrays.rows_R3).tobytes(),
        tables=arrays.block_tables_RB.astype(np.int32).tobytes(),
        zeroed=zeroed,
    )
