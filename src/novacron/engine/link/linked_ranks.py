"""A model over several hosts, as an engine's settings name them: links of CurveZMQ for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, link_key_file, read_or_make_key
from novacron.engine.link.tensor_socket import RankLink
from novacron.executor.hosts.host_team import HostsOfRanks
from novacron.executor.hosts.linked_pipeline import LinkedPipelineExecutor
from novacron.executor.hosts.linked_rows import LinkedRowsExecutor
from novacron.executor.hosts.linked_slices import LinkedSlicesExecutor
from novacron.parallel.messages.links import OnLoss
from novacron.parallel.messages.tensor_message import Compression

_COMPRESSIONS = {"none": Compression.NONE, "int8": Compression.INT8}


def load_linked_model(
    config: EngineConfig,
    model_path: Path,
    draft_path: Path | None,
    progress: Callable[[str, float], None],
    on_loss: Callable[[str], None],
    owner: str,
) -> LinkedPipelineExecutor | LinkedSlicesExecutor | LinkedRowsExecutor:
    """Raises ConfigError and ModelLoadError."""
    apart, model = config.apart, config.model
    addresses = [EngineAddress.parse(text, "rank_hosts") for text in apart.hosts]
    keys = read_or_make_key(link_key_file(apart.link_key))
    in_flight = model.pipeline_steps_in_flight or model.pipeline_parallel_size
    return _executor_for(model)(
        replace(model, model=_as_others_know_it(model.model), pipeline_steps_in_flight=in_flight),
        config.cache,
        config.scheduler,
        HostsOfRanks(
            addresses=tuple(map(str, addresses)),
            owner=owner or name_of_process(os.getpid()),
            open_link=partial(open_rank_link, keys, apart.link_timeout, 0),
            timeout_s=apart.link_timeout,
            step_timeout_s=config.step_timeout,
            compression=_COMPRESSIONS[apart.compression],
        ),
        model_path=model_path,
        draft_path=draft_path,
        progress=progress,
        speculative=config.speculative,
        shared=config.shared,
        on_loss=on_loss,
    )


def _executor_for(
    model: ModelConfig,
) -> type[LinkedPipelineExecutor | LinkedSlicesExecutor | LinkedRowsExecutor]:
    if model.context_parallel_size > 1:
        return LinkedRowsExecutor
    return LinkedPipelineExecutor if model.pipeline_parallel_size > 1 else LinkedSlicesExecutor


def _as_others_know_it(model: str) -> str:
    """A path without what only this process knows: where it was started."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model and path.exists() else model


def open_rank_link(
    keys: KeyPair,
    timeout_s: float,
    clock_offset_ns: int,
    address: str,
    epoch: int,
    source: int,
    target: int,
    on_loss: OnLoss,
) -> RankLink:
    """Raises ConfigError."""
    return RankLink(
        EngineAddress.parse(address, "rank_hosts"),
        keys,
        epoch=epoch,
        source=source,
        target=target,
        timeout_s=timeout_s,
        on_loss=on_loss,
        clock_offset_ns=clock_offset_ns,
    )


def parent_name() -> str:
    """Of the process that starts this one anew when it ends."""
    return name_of_process(os.getppid())


def name_of_process(pid: int) -> str:
    """No other process, here or elsewhere, now or later, has it."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time()}"
