"""Requests to an engine whose Redis server fails in every way: `python -m` this file.

The engine has that tier alone and a device too small for what is asked, so prefixes come from the
server, or are computed. Before each turn the server is well, and has them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from novacron.bench.cache_fault_job import BASELINE, FaultJob, FaultTurn
from novacron.bench.flaky_proxy import FlakyProxy, flaky_proxy
from novacron.engine.llm import LLM
from novacron.errors import NovaCronError
from novacron.records.request import SamplingParams

_PAUSE_S = 0.05  # so that blocks are stored
_MOST_TRIES = 2000  # longer than a tier that failed is left alone, also if we are stopped meanwhile

Tokens = list[tuple[int, ...] | None]


class Asker:
    def __init__(self, llm: LLM, job: FaultJob) -> None:
        self._llm = llm
        self._job = job
        self._sampling = SamplingParams(
            temperature=0.0, max_tokens=job.output_tokens, ignore_eos=True
        )

    def ask(self) -> tuple[Tokens, tuple[float, ...], int]:
        """The tokens of every prompt, None for one that failed; seconds; tokens not computed."""
        tokens: Tokens = []
        seconds, num_cached = [], 0
        for prompt in self._job.prompts:
            started_s = time.perf_counter()
            try:
                [output] = self._llm.generate([list(prompt)], self._sampling)
            except NovaCronError:
                tokens.append(None)
            else:
                tokens.append(output.token_ids if output.finish_reason == "length" else None)
                num_cached += output.num_cached_tokens
            seconds.append(time.perf_counter() - started_s)
        return tokens, tuple(seconds), num_cached

    def ask_until_cached(self) -> int:
        """Until the server is well and has most prefixes. Returns the tokens that came from it."""
        num_tokens = sum(map(len, self._job.prompts))
        for _ in range(_MOST_TRIES):
            _, _, num_cached = self.ask()
            if num_cached > num_tokens // 2:
                return num_cached
            time.sleep(_PAUSE_S)
        raise TimeoutError("nothing came back from a server that is well")


def _turn(
    asker: Asker, proxy: FlakyProxy, fault: str, chance: float, expected: Tokens
) -> FaultTurn:
    num_before = asker.ask_until_cached()
    count, proxy.fault, proxy.chance = proxy.num_faults, fault, chance
    if fault == "refuse":
        proxy.cut_all()
    tokens, seconds, num_cached = asker.ask()
    num_faults = proxy.num_faults - count
    proxy.fault = "none"
    proxy.cut_all()  # what hangs
    pairs = list(zip(tokens, expected, strict=True))
    return FaultTurn(
        fault=fault,
        seconds=seconds,
        num_failed=sum(own is None for own, _ in pairs),
        num_wrong=sum(own is not None and own != right for own, right in pairs),
        num_faults=num_faults,
        num_cached_tokens=num_cached,
        num_cached_before=num_before,
    )


def _tell(turn: FaultTurn) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(turn) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=FaultJob)
    without = LLM(job.model_path, **job.settings)
    asker = Asker(without, job)
    asker.ask()  # the first of all is slow
    expected, seconds, _ = asker.ask()
    _tell(FaultTurn(fault=BASELINE, seconds=seconds))
    without.close()
    with flaky_proxy(Path(job.redis_socket), job.seed) as proxy:
        tier = {
            "kv_redis_url": f"redis://127.0.0.1:{proxy.port}",
            "kv_redis_deadline": job.deadline_s,
        }
        llm = LLM(job.model_path, **(job.settings | tier))
        asker = Asker(llm, job)
        for _ in range(job.rounds):
            for chance in job.chances:
                for fault in job.faults:
                    _tell(_turn(asker, proxy, fault, chance, expected))
        llm.close()


if __name__ == "__main__":
    main()
