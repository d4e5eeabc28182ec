"""A process with a rank other than 0: loads its slice of the model, and computes what rank 0 says.

Started by RankTeam as `python -m novacron.executor.rank_process`, with its RankArguments as one
line of JSON on standard input. Ends when rank 0 closes the connection, or ends itself; exit code 1
if the other ranks were lost in the middle of a step.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec
import torch

from novacron.errors import NovaCronError
from novacron.executor.blueprint import dims_of, draw_blueprint
from novacron.executor.followed_steps import FollowedStages, FollowedSteps
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_memory import RankMemory
from novacron.executor.rank_messages import (
    ComputeLogits,
    FromRank,
    RankArguments,
    RankFailed,
    RankReady,
    RunStage,
    RunStep,
    ToRank,
    ZeroBlocks,
)
from novacron.executor.stage_ends import StageEnds
from novacron.executor.worker import allocate_cache, load_model, make_batch
from novacron.kernels.native.library import GroupLost
from novacron.parallel.handover import HandoverLost
from novacron.runner.captured_step import capture_step
from novacron.runner.stage_step import StageStep


class RankWorker:
    """The rank's part of the model, loaded when made. Raises ConfigError and ModelLoadError."""

    def __init__(self, arguments: RankArguments) -> None:
        model, cache, scheduler = arguments.model, arguments.cache, arguments.scheduler
        torch.set_num_threads(arguments.num_threads)
        keep_freed_memory()
        blueprint = draw_blueprint(model, Path(arguments.model_path), arguments.num_threads)
        blueprint = blueprint.of_rank(arguments.rank, dims_of(model))
        memory = RankMemory(
            blueprint,
            scheduler,
            block_size=cache.block_size,
            max_model_len=arguments.max_model_len,
            descriptor=arguments.descriptor,
        )
        self._link = memory.join(Path(arguments.meeting_point))
        blueprint = blueprint.joined_by(self._link.communicator)
        decoder, _ = load_model(blueprint, model, lambda fraction: None)
        if blueprint.kernels.has_threads:
            torch.set_num_threads(1)
        decoder.set_context(arguments.max_model_len)
        self._kv_tensors = allocate_cache(blueprint, arguments.num_blocks, cache)
        is_only_stage = blueprint.dims.pipeline == 1
        batch = make_batch(
            blueprint,
            scheduler,
            block_size=cache.block_size,
            max_model_len=arguments.max_model_len,
            arrays=memory.steps[0] if is_only_stage else None,
        )
        layers = self._kv_tensors.layers
        self._steps: FollowedSteps | FollowedStages
        if is_only_stage:
            self._steps = FollowedSteps(capture_step(decoder, layers, batch), batch)
        else:
            ends = StageEnds(memory, blueprint.stage, arguments.entry, arguments.exits)
            own = StageStep(decoder, layers, batch, ends.entry, ends.exits)
            self._steps = FollowedStages(own, batch, memory.steps, ends.logits(decoder, batch))

    @torch.inference_mode()
    def follow(self, message: ToRank) -> None:
        """Raises GroupLost and HandoverLost."""
        match message:
            case RunStep() | RunStage():
                self._steps.run(message)
            case ComputeLogits(places):
                self._steps.logits(places)
            case ZeroBlocks(block_ids):
                self._kv_tensors.zero(block_ids)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for rank 0
    arguments = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankArguments)
    own = socket.socket(fileno=arguments.socket)
    _end_with(own)
    connection = RankConnection[FromRank, ToRank](own, ToRank)
    try:
        worker = RankWorker(arguments)
    except NovaCronError as error:
        connection.send(RankFailed(type(error).__name__, str(error)))
        return
    connection.send(RankReady())
    gc.collect()
    gc.freeze()
    try:
        while True:
            worker.follow(connection.receive())
    except EOFError:
        pass
    except (GroupLost, HandoverLost):
        sys.exit(1)


def _end_with(own: socket.socket) -> None:
    """End this process as soon as rank 0 is gone, whatever it is doing."""

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(own, select.POLLRDHUP)
        hung_up.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="end-with-rank-0").start()


if __name__ == "__main__":
    main()
