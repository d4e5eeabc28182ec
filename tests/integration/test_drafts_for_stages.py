"""A draft model that guesses for a model whose parts are several processes', on one host or more:
the tokens of one process without guesses, though several steps are under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import NO_SPECULATION, EngineConfig, RanksApart, SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.engine.link.keys import write_key
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.executor.pipeline import PipelineExecutor
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.step_times import StepTimes
from novacron.testing.deeper_models import make_deeper_model
from novacron.testing.rank_hosts import LEADER, RankThread
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

PROMPTS = [tuple(range(5 + seed, 40 + 3 * seed)) for seed in range(4)]
SAMPLED = SamplingParams(temperature=0.7, max_tokens=40, ignore_eos=True, seed=3)
Answers = dict[str, tuple[int, ...]]


@pytest.fixture(autouse=True)
def _guesses_look_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steps take here does not decide whether any are made."""
    monkeypatch.setattr(StepTimes, "estimate_s", lambda self, num_tokens: 0.0)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("draft"))


@pytest.fixture(scope="module")
def folder(draft: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_deeper_model(draft, tmp_path_factory.mktemp("m") / "m", num_layers=7, noise=0.02)


@contextmanager
def core_of(
    folder: Path,
    speculative: SpeculativeConfig = NO_SPECULATION,
    apart: RanksApart | None = None,
    **model: Any,
) -> Iterator[EngineCore]:
    config = EngineConfig(
        model=ModelConfig(model=str(folder), dtype="float32", num_threads=1, **model),
        cache=CacheConfig(kv_cache_memory=2**24, kv_ram_size=0, kv_disk_size=0),
        speculative=speculative,
        apart=apart or RanksApart(),
    )
    core = build_core(config, load_executor(config, folder, lambda *_: None), folder)
    try:
        yield core
    finally:
        core.shutdown()


def answers(core: EngineCore, harm: Mapping[int, Callable[[], None]] | None = None) -> Answers:
    """`harm` comes before steps with these numbers."""
    for number, prompt in enumerate(PROMPTS):
        core.add(
            Request(
                request_id=str(number),
                prompt_token_ids=prompt,
                sampling=SAMPLED,
                arrival_time_s=float(number),
            )
        )
    found: Answers = {str(number): () for number in range(len(PROMPTS))}
    steps = count()
    while core.has_work:
        (harm or {}).get(next(steps), lambda: None)()
        for output in core.step():
            assert output.error is None, output.error
            found[output.request_id] += output.new_token_ids
    return found


@pytest.fixture(scope="module")
def expected(folder: Path) -> Answers:
    with core_of(folder) as core:
        return answers(core)


def guessing(draft: Path) -> SpeculativeConfig:
    return SpeculativeConfig(speculative_method="draft", speculative_model=str(draft))


@pytest.mark.parametrize("in_flight", [1, 2])
def test_stages_of_a_host(folder: Path, draft: Path, expected: Answers, in_flight: int) -> None:
    sizes = {"pipeline_parallel_size": 2, "pipeline_steps_in_flight": in_flight}
    with core_of(folder, guessing(draft), None, **sizes) as core:
        assert answers(core) == expected
        assert core.stats().num_drafts > 0


@pytest.mark.slow
def test_a_stage_that_is_replaced_changes_no_guess_into_a_token(
    folder: Path, draft: Path, expected: Answers
) -> None:
    sizes = {"pipeline_parallel_size": 2, "pipeline_steps_in_flight": 2}
    with core_of(folder, guessing(draft), None, **sizes) as core:
        executor = core._executor
        assert isinstance(executor, PipelineExecutor)

        def kill() -> None:
            os.kill(executor.rank_pids[0], signal.SIGKILL)

        assert answers(core, {5: kill, 9: kill}) == expected
        assert executor.num_ranks_replaced > 0
        assert core.stats().num_accepted_tokens > 0


@pytest.mark.parametrize("way", ["pipeline_parallel_size", "tensor_parallel_size"])
def test_a_host_that_is_lost_has_guesses_begin_anew(
    folder: Path, draft: Path, expected: Answers, way: str, tmp_path: Path
) -> None:
    """Guesses for steps that have no result are forgotten: nobody learns from them."""
    write_key(tmp_path / "key", LEADER)
    with RankThread(folder, num_lives=3) as rank:
        apart = RanksApart(hosts=(rank.address,), link_key=str(tmp_path / "key"))

        def lose() -> None:
            rank.fault = ConnectionError("it is pulled out")

        with core_of(folder, guessing(draft), apart, **{way: 2}) as core:
            executor = core._executor
            assert isinstance(executor, OverHosts)
            assert answers(core, {6: lose, 16: lose}) == expected
            assert executor.num_ranks_replaced == 2
            assert core.stats().num_drafts > 0


@pytest.mark.parametrize(
    "way",
    [
        {"pipeline_parallel_size": 2},
        pytest.param({"tensor_parallel_size": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"pipeline_parallel_size": 2, "tensor_parallel_size": 2}, marks=pytest.mark.slow
        ),
    ],
)
def test_several_hosts(
    folder: Path, draft: Path, expected: Answers, way: dict[str, int], tmp_path: Path
) -> None:
    write_key(tmp_path / "key", LEADER)
    rank = RankThread(folder)  # which knows nothing of the draft model
    apart = RanksApart(hosts=(rank.address,), link_key=str(tmp_path / "key"))
    with core_of(folder, guessing(draft), apart, **way) as core:
        assert answers(core) == expected
        assert core.stats().num_drafts > 0
        found = core.stats()
    rank.join()
    assert found.num_accepted_tokens > 0
