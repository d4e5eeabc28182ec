"""A process with a rank other than 0: loads its part of the model, and computes what rank 0 says.

Started by RankSeat as `python -m novacron.executor.rank_process`, with its RankArguments as one
line of JSON on standard input. Ends when rank 0 closes the connection, or ends itself. When another
rank is lost it drops the step, and waits for rank 0 to begin anew.
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
from typing import TypedDict

import msgspec
import torch

from novacron.errors import NovaCronError
from novacron.executor.blueprint import Blueprint, dims_of, draw_blueprint
from novacron.executor.own_rank import RankLoader
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_messages import (
    BeginAnew,
    Begun,
    FromRank,
    RankArguments,
    RankFailed,
    RankReady,
    ToRank,
)
from novacron.executor.rank_sharing import JoinedRanks, join_ranks
from novacron.executor.stage_sharing import JoinedStage, part_of_stage


class Sizes(TypedDict):
    num_blocks: int
    max_model_len: int
    descriptor: int


def no_progress(phase: str, fraction: float) -> None:
    pass


class RankWorker:
    """The rank's part of the model, loaded when made. Raises ConfigError and ModelLoadError."""

    def __init__(self, arguments: RankArguments) -> None:
        model, cache, scheduler = arguments.model, arguments.cache, arguments.scheduler
        torch.set_num_threads(arguments.num_threads)
        keep_freed_memory()
        whole = draw_blueprint(model, Path(arguments.model_path), arguments.num_threads)
        joined = _join(whole, arguments)
        self.link, blueprint = joined.link, joined.blueprint
        loader = RankLoader(model, cache, scheduler, no_progress)
        weights = loader.load_weights(blueprint)
        rank = loader.make_room(
            blueprint, weights, arguments, arrays=joined.memory.arrays, allocate=joined.allocate
        )
        self.digest = weights.digest
        self._follow = joined.follower(rank.decoder, rank.kv_tensors.layers, rank.batch)

    @torch.inference_mode()
    def follow(self, message: ToRank) -> FromRank | None:
        """What to answer, if anything. Raises ConnectionError if another rank is lost."""
        if isinstance(message, BeginAnew):
            self.link.begin_anew(Path(message.meeting_point))
            return Begun(message.epoch)
        self._follow(message)
        return None


def _join(whole: Blueprint, arguments: RankArguments) -> JoinedRanks | JoinedStage:
    """With the other ranks. Raises ConfigError."""
    model, rank, stage = arguments.model, arguments.rank, arguments.stage
    sizes: Sizes = {
        "num_blocks": arguments.num_blocks,
        "max_model_len": arguments.max_model_len,
        "descriptor": arguments.descriptor,
    }
    if stage is None:
        own = whole.of_rank(rank, dims_of(model))
        return join_ranks(own, model, arguments.cache, arguments.scheduler, **sizes)
    own = part_of_stage(whole, model, stage, rank)
    return JoinedStage(
        own, model, arguments.cache, arguments.scheduler, num_places=stage.num_places, **sizes
    )


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for rank 0
    arguments = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankArguments)
    own = socket.socket(fileno=arguments.socket)
    end_with(own)
    connection = RankConnection[FromRank, ToRank](own, ToRank)
    try:
        worker = RankWorker(arguments)
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


def _follow(worker: RankWorker, connection: RankConnection[FromRank, ToRank]) -> None:
    """The next message. Raises EOFError."""
    message = connection.receive()
    try:
        answer = worker.follow(message)
    except ConnectionError:  # steps fail until rank 0 has all begin anew
        worker.link.give_up()
        return
    if answer is not None:
        connection.send(answer)


def end_with(own: socket.socket) -> None:
    """End this process as soon as rank 0 is gone, whatever it is doing."""

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(own, select.POLLRDHUP)
        hung_up.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="end-with-rank-0").start()


if __name__ == "__main__":
    main()
