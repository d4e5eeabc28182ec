"""A process with a rank of a pipeline, other than 0: loads its layers, or its slices of them, and
computes its stage of what rank 0 says.

Started by RankSeat as `python -m novacron.executor.stage_process`, with its RankArguments as one
line of JSON on standard input. Ends when rank 0 closes the connection, or ends itself. When another
rank is lost it drops the step, and waits for rank 0 to begin anew.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
import torch

from novacron.errors import NovaCronError
from novacron.executor.blueprint import dims_of, draw_blueprint
from novacron.executor.own_rank import RankLoader
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_messages import (
    Begun,
    FromRank,
    RankArguments,
    RankFailed,
    RankReady,
)
from novacron.executor.rank_process import end_with, no_progress
from novacron.executor.stage_ends import Pipes, StageEnds
from novacron.executor.stage_memory import StageMemory
from novacron.executor.stage_messages import (
    BeginStage,
    ComputeStageLogits,
    MakeWhole,
    RunStage,
    ToStage,
)
from novacron.parallel.handover import HandoverLost
from novacron.runner.stage_step import StageStep


class StageWorker:
    """The rank's part of the model, loaded when made. Raises ConfigError and ModelLoadError."""

    def __init__(self, rank: RankArguments) -> None:
        model, cache, scheduler = rank.model, rank.cache, rank.scheduler
        torch.set_num_threads(rank.num_threads)
        keep_freed_memory()
        blueprint = draw_blueprint(model, Path(rank.model_path), rank.num_threads)
        blueprint = blueprint.of_rank(rank.rank, dims_of(model))
        memory = StageMemory(
            blueprint,
            cache,
            scheduler,
            num_blocks=rank.num_blocks,
            max_model_len=rank.max_model_len,
            descriptor=rank.descriptor,
        )
        link = memory.join(model.rank_timeout)
        blueprint = blueprint.joined_by(link.communicator)
        loader = RankLoader(model, cache, scheduler, no_progress)
        weights = loader.load_weights(blueprint)
        own = loader.make_room(blueprint, weights, rank, memory=memory.kv_blocks)
        self.digest, self._batch = weights.digest, own.batch
        stage = blueprint.stage
        self._link, self._group_rank = link, blueprint.group.rank
        self._traffic = memory.traffic[rank.rank]
        self._traffic.go_on_from(*link.met(self._group_rank))
        speaks = blueprint.dims.leads(rank.rank)
        self._ends = ends = StageEnds(memory, stage, speaks=speaks, traffic=self._traffic)
        layers = stage.of(own.kv_tensors.layers)
        self._own = StageStep(own.decoder, layers, self._batch, ends.entry, ends.exits)
        self._logits = ends.logits(own.decoder, self._batch)
        self._steps = memory.steps
        self._is_in_group = False

    def begin(self, message: BeginStage, descriptors: list[int]) -> None:
        """Be in the group that the message tells of."""
        self._ends.lay(Pipes.of(descriptors, message.num_exits))
        self._link.begin_anew(Path(message.meeting_point))
        self._is_in_group = True

    def make_whole(self) -> None:
        self._link.reset()

    def leave(self) -> None:
        """Another rank is lost: have nobody wait for this one. Steps are dropped from now on."""
        self._is_in_group = False
        self._link.give_up()
        self._ends.close()

    @torch.inference_mode()
    def follow(self, message: RunStage | ComputeStageLogits) -> None:
        """Raises ConnectionError and HandoverLost if another rank is lost."""
        if not self._is_in_group:
            return
        match message:
            case RunStage(place, num_tokens, num_requests, num_blocks):
                counts = num_tokens, num_requests, num_blocks
                inputs = self._batch.copied_input(self._steps[place], *counts)
                self._traffic.see_step()  # first: who has the result has it counted
                began_ns = time.monotonic_ns()
                self._own.compute(inputs, place)
                self._traffic.see_time(time.monotonic_ns() - began_ns)
                self._traffic.see_meetings(*self._link.met(self._group_rank))
            case ComputeStageLogits(rows):
                self._logits(rows)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for rank 0
    arguments = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankArguments)
    own = socket.socket(fileno=arguments.socket)
    end_with(own)
    connection = RankConnection[FromRank, ToStage](own, ToStage)
    try:
        worker = StageWorker(arguments)
    except NovaCronError as error:
        connection.send(RankFailed(type(error).__name__, str(error)))
        return
    connection.send(RankReady(worker.digest))
    gc.collect()
    gc.freeze()
    try:
        while True:
            _follow(worker, connection)
    except EOFError:
        pass


def _follow(worker: StageWorker, connection: RankConnection[FromRank, ToStage]) -> None:
    """The next message. Raises EOFError."""
    match connection.receive():
        case BeginStage() as message:
            worker.begin(message, connection.take_descriptors())
            connection.send(Begun(message.epoch))
        case MakeWhole(epoch):
            worker.make_whole()
            connection.send(Begun(epoch))
        case message:
            try:
                worker.follow(message)
            except (ConnectionError, HandoverLost):
                worker.leave()


if __name__ == "__main__":
    main()
