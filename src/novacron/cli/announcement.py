"""What `novacron serve` shows: the model loading, then where it is and how to use it.

On a terminal a progress bar and a banner; else plain log lines, one for each phase.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import psutil

from novacron.cli.wording import count, size
from novacron.config.load import Settings
from novacron.engine.client import EngineClient, EngineState
from novacron.records.output import ModelSpec

_POLL_S = 0.05
_PHASES = {
    "start": "starting the engine",
    "weights": "reading the weights",
    "compilation": "compiling",
    "kv_cache": "reserving the KV cache",
    "warm_up": "warming up",
}

logger = logging.getLogger(__name__)


async def show_loading(client: EngineClient) -> None:
    """Follow the loading until it has ended. Raises the reason if it failed."""
    follow = _draw_bar if sys.stderr.isatty() else _log_phases
    following = asyncio.create_task(follow(client))
    try:
        await client.wait_ready()
    finally:
        following.cancel()
        await asyncio.wait({following})  # the bar is gone before anything else is printed


def announce(
    url: str, client: EngineClient, settings: Settings, *, needs_key: bool = False
) -> None:
    """Say that the server is ready: a banner for people, one log line for programs."""
    spec, total_s = client.spec, _seconds_since_process_start()
    if sys.stderr.isatty():
        print(
            banner(url, spec, settings, total_s, needs_key=needs_key), file=sys.stderr, flush=True
        )
    else:
        logger.info("ready: %s serves %s %s", url, spec.name, _started(spec, total_s))


def banner(
    url: str, spec: ModelSpec, settings: Settings, total_s: float, *, needs_key: bool = False
) -> str:
    """The text shown when the server is ready."""
    precision = f", {spec.kv_precision}" if spec.kv_precision else ""
    rows = {
        "Model": f"{spec.name} ({spec.architecture}, {count(spec.num_parameters)} parameters)",
        "Device": f"{spec.device}{_ranks(spec)}, {_precision(spec)}",
        "KV cache": f"{spec.num_blocks} blocks of {spec.block_size} tokens, "
        f"{size(spec.kv_cache_bytes)}{precision}",
        **_further_variants(settings),
        **_replicas(settings),
        "Streams": f"up to {settings.engine.scheduler.max_num_seqs} at once, "
        f"{spec.max_model_len} tokens of context",
        "Ready": _started(spec, total_s),
    }
    table = "\n".join(f"  {name:9} {value}" for name, value in rows.items())
    authorization = " -H 'Authorization: Bearer YOUR_KEY'" if needs_key else ""
    return f"""
NovaCron is ready at {url}

{table}

Try it:
  novacron chat --url {url}
  curl {url}/v1/chat/completions{authorization} -H 'Content-Type: application/json' \\
    -d '{{"model": "{spec.name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
  Python: openai.OpenAI(base_url="{url}/v1", api_key="{"YOUR_KEY" if authorization else "none"}")
"""


def _ranks(spec: ModelSpec) -> str:
    slices, stages = spec.tensor_parallel_size, spec.pipeline_parallel_size
    each = "" if slices == 1 else f", {slices} processes for each layer"
    if spec.context_parallel_size > 1:
        each = f", {spec.context_parallel_size} processes for long prompts"
    return each if stages == 1 else f"{each}, {stages} stages"


def _further_variants(settings: Settings) -> dict[str, str]:
    names = settings.engine.model.variants
    return {"Variants": f"{', '.join(names)}, each loaded next"} if names else {}


def _replicas(settings: Settings) -> dict[str, str]:
    count = settings.engine.model.data_parallel_size
    return {"Replicas": f"{count}, of which the others are loaded next"} if count > 1 else {}


async def _draw_bar(client: EngineClient) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Loading: {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("start", total=None)
        while True:
            phase, fraction = client.loading_progress
            total = 1.0 if fraction else None  # None: it moves, without a measure
            progress.update(
                task, description=_PHASES.get(phase, phase), completed=fraction, total=total
            )
            await asyncio.sleep(_POLL_S)


async def _log_phases(client: EngineClient) -> None:
    shown = ""
    while client.state is EngineState.LOADING:
        phase, _ = client.loading_progress
        if phase != shown:
            logger.info("loading: %s", _PHASES.get(phase, phase))
            shown = phase
        await asyncio.sleep(_POLL_S)


def _precision(spec: ModelSpec) -> str:
    if spec.quantization == "none":
        return spec.dtype
    return f"{spec.dtype} with weights in {spec.quantization}"


def _started(spec: ModelSpec, total_s: float) -> str:
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spec.load_phases_s.items())
    return f"in {total_s:.2f} s" + (f" (engine: {phases})" if phases else "")


def _seconds_since_process_start() -> float:
    return time.time() - psutil.Process().create_time()
