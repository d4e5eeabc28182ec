"""An EngineCore without anything around it, in a process of its own: `python -m` this file.

Driven by lines of JSON: EngineArguments first, then one Batch per line, answered by one
BatchTimes each, until standard input is closed. Imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import msgspec

from novacron.bench.batch import Batch, BatchTimes
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.engine.engine_arguments import EngineArguments
from novacron.records.request import Request, SamplingParams


def run_batch(core: EngineCore, batch: Batch) -> BatchTimes:
    ids = [f"{batch.batch_id}-{number}" for number in range(len(batch.prompts))]
    times: dict[str, list[float]] = {request_id: [] for request_id in ids}
    started_s = time.perf_counter()
    for request_id, prompt in zip(ids, batch.prompts, strict=True):
        sampling = SamplingParams(
            temperature=0.0, max_tokens=batch.max_tokens, ignore_eos=True, seed=0
        )
        core.add(
            Request(
                request_id=request_id,
                prompt_token_ids=prompt,
                sampling=sampling,
                arrival_time_s=time.monotonic(),
            )
        )
    while core.has_work:
        outputs = core.step()
        now_s = time.perf_counter()
        for output in outputs:
            times[output.request_id] += [now_s] * len(output.new_token_ids)
    return BatchTimes(started_s, tuple(tuple(times[request_id]) for request_id in ids))


def main() -> None:
    lines = sys.stdin.buffer
    arguments = msgspec.json.decode(lines.readline(), type=EngineArguments)
    config = arguments.config
    executor = load_executor(config, Path(arguments.model_path), lambda phase, fraction: None)
    core = build_core(config, executor, Path(config.model.tokenizer or arguments.model_path))
    gc.collect()
    gc.freeze()  # as the engine process does
    for line in lines:
        times = run_batch(core, msgspec.json.decode(line, type=Batch))
        sys.stdout.buffer.write(msgspec.json.encode(times) + b"\n")
        sys.stdout.buffer.flush()
    core.shutdown()


if __name__ == "__main__":
    main()
